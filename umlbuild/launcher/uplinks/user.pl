# The uplink of one interface with `transport = "user"`: stands between UML and slirp4netns. Made by umlbuild.
#
#   perl -e TEXT NAME UNIT DIRECTORY LOOPBACK FORWARDS SLIRP4NETNS…
#
# slirp4netns takes one connection in its life, makes its api socket only after that, and turns in circles when the
# other side closes. So it talks to us from before UML starts until UML ends, and UML, whose guest may take the
# interface down and up or reboot, comes and goes here.
#
# LOOPBACK: what of the host's loopback the guest may reach.
#   open     everything.
#   shut     nothing; slirp4netns itself is told so (--disable-host-loopback), which closes 10.0.2.2. But what guest root
#            sends to 127.0.0.1 itself gets through slirp4netns 1.2.0 (measured): that is dropped here.
#   replies  nothing but answers to what came through a port forward. With --disable-host-loopback slirp4netns drops
#            the guest's answers to datagrams from the loopback (measured), so UDP forwards go without, and all is here.
#
# In DIRECTORY: `uml` we listen for UML; `slirp/frames` and `slirp/api` are slirp4netns'; `resolv.conf` is the host's,
# kept up to date (the host's own is often replaced as a whole, which a bind mount would not show). Then `ready` is
# made there, or `why` with one sentence, and we end. FORWARDS: "tcp:127.0.0.1:8080:10.0.2.15:80 …".
#
# Needs perl-base. Source: slirp4netns 1.2.0 main.c child_bess, slirp4netns.c do_slirp, api.c.

use strict;
use warnings;
use Errno qw(EAGAIN EINTR EMSGSIZE ENOBUFS);
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use POSIX ();
use Socket;

my ($name, $unit, $dir, $loopback, $forwards, @command) = @ARGV;
my $START_S = 10;     # for slirp4netns to listen, and for each of its answers
my $FRAME = 65550;    # the largest that UML sends, and then some
my $BATCH = 32;       # frames of one side before the other has its turn
my $said = "";        # the end of what slirp4netns said
$SIG{PIPE} = "IGNORE";

sub fail {
    my ($why) = @_;
    my $tail = (split /\n/, $said)[-1];
    $why .= ": $tail" if defined $tail;
    open(my $file, ">", "$dir/why.new") or exit 1;
    print {$file} "$why\n";
    close($file);
    rename("$dir/why.new", "$dir/why");
    exit 1;
}

sub nonblocking { fcntl($_[0], F_SETFL, fcntl($_[0], F_GETFL, 0) | O_NONBLOCK) }

# host_resolv(): name servers of the host, into the copy that slirp4netns sees, if they are new.
my $known = "";
sub host_resolv {
    my $now = "";
    if (open(my $file, "<", "/etc/resolv.conf")) {
        read($file, $now, 65536);
        close($file);
    }
    return if $now eq $known;
    $known = $now;
    open(my $file, ">", "$dir/resolv.conf") or return;
    print {$file} $now;
    close($file);
}

# connected(PATH, TYPE, CHILD): a socket, as soon as somebody listens there; undef after START_S, or when CHILD ended.
sub connected {
    my ($path, $type, $output) = @_;
    my $until = time + $START_S;
    while (time < $until) {
        socket(my $socket, AF_UNIX, $type, 0) or return undef;
        return $socket if connect($socket, pack_sockaddr_un($path));
        my $ready = "";
        vec($ready, fileno($output), 1) = 1;
        if (select($ready, undef, undef, 0.01) && !listen_to($output)) {
            return undef;
        }
    }
    return undef;
}

# listen_to(OUTPUT): keeps the end of what slirp4netns says; false at its end.
sub listen_to {
    my ($output) = @_;
    my $got = sysread($output, my $text, 4096);
    return 1 if !defined $got;
    $said = substr($said . $text, -2000);
    return $got;
}

# asked(REQUEST): the answer of  slirp4netns' api, "" if there is none.
sub asked {
    my ($request, $output) = @_;
    my $socket = connected("$dir/slirp/api", SOCK_STREAM, $output) or return "";
    syswrite($socket, $request);
    my $answer = "";
    my $until = time + $START_S;
    while (time < $until) {
        my $ready = "";
        vec($ready, fileno($socket), 1) = 1;
        next if select($ready, undef, undef, 0.5) < 1;
        my $got = sysread($socket, $answer, 4096, length $answer);
        last if !$got;
    }
    return $answer;
}

# is_taken(ADDRESS, PORT): whether somebody has this UDP port. slirp4netns would share it (SO_REUSEADDR) and get nothing.
sub is_taken {
    my ($address, $port) = @_;
    socket(my $socket, AF_INET, SOCK_DGRAM, 0) or return 0;
    return !bind($socket, pack_sockaddr_in($port, inet_aton($address)));
}

# --- slirp4netns ------------------------------------------------------------------------------------------

# What the launcher's caller left open is not for slirp4netns.
opendir(my $mine, "/proc/self/fd") or fail("/proc: $!");
my @open = grep { /^[0-9]+$/ && $_ > 2 && $_ != fileno($mine) } readdir($mine);
closedir($mine);
POSIX::close($_) for @open;
host_resolv();
socket(my $listener, AF_UNIX, SOCK_SEQPACKET, 0) or fail("$dir/uml: $!");
bind($listener, pack_sockaddr_un("$dir/uml")) && listen($listener, 4) or fail("$dir/uml: $!");
nonblocking($listener);
my @forwards = split / /, $forwards;
for my $forward (@forwards) {
    my ($protocol, $address, $port) = split /:/, $forward;
    fail("taken $protocol $address $port") if $protocol eq "udp" && is_taken($address, $port);
}
pipe(my $output, my $end) or fail("pipe: $!");
my $slirp = fork;
defined $slirp or fail("fork: $!");
if (!$slirp) {
    open(STDIN, "<", "/dev/null");
    open(STDOUT, ">&", $end);
    open(STDERR, ">&", $end);
    exec {$command[0]} @command or print "$command[0]: $!\n";
    exit 127;
}
close($end);
my $host = connected("$dir/slirp/frames", SOCK_SEQPACKET, $output) or fail("slirp4netns cannot be started");
nonblocking($host);
for my $forward (@forwards) {
    my ($protocol, $address, $port, $guest, $guest_port) = split /:/, $forward;
    my $answer = asked(qq({"execute":"add_hostfwd","arguments":{"proto":"$protocol","host_addr":"$address",)
            . qq("host_port":$port,"guest_addr":"$guest","guest_port":$guest_port}}), $output);
    next if $answer =~ /"return"/;
    $said = $answer ? "" : $said;
    fail($answer ? "taken $protocol $address $port" : "slirp4netns does not answer");
}
open(my $ready, ">", "$dir/ready") or fail("$dir/ready: $!");
close($ready);

# --- frames ---------------------------------------------------------------------------------------------

my ($uml, $to_uml, $to_host); # frames that wait until the other side takes them
my $tick = time + 2;

# sent(SOCKET, FRAME): 1 done (or lost, as frames may be), 0 later, undef: the other side is gone.
sub sent {
    return 1 if defined syswrite($_[0], $_[1]);
    return 0 if $! == EAGAIN || $! == EINTR;
    return $! == EMSGSIZE || $! == ENOBUFS ? 1 : undef;
}

# passes(FRAME): whether slirp4netns may have this frame of the guest. What it would ignore may pass.
# Source: libslirp 4.7 socket.c sotranslate_out: its own network and link-local addresses lead to the loopback.
sub passes {
    my $type = unpack("x12 n", $_[0]);
    if ($type == 0x0800) {
        return 0 if length($_[0]) < 34;
        my ($first, $fragment, $protocol, $to) = unpack("x14 C x5 n x1 C x6 N", $_[0]);
        my $network = $to >> 24;
        return 0 if $network == 127 || $network == 0;
        return 1 if $loopback eq "shut" || $to >> 8 != 0x0A0002 && $to != 0xFFFFFFFF;
        return $fragment & 0x3FFF ? 0 : to_slirp($protocol, 14 + 4 * ($first & 15), $to & 255, $_[0]);
    }
    if ($type == 0x86DD) {
        return 0 if length($_[0]) < 54;
        my ($protocol, $to) = unpack("x20 C x17 a16", $_[0]);
        return 0 if substr($to, 0, 8) eq "\0" x 8; # ::1, and IPv4 addresses in the guise of IPv6
        return 1 if $to !~ /^(?:\xFD\0{7}|\xFE[\x80-\xBF]|\xFF)/s;
        return 1 if $protocol == 58;
        return 0 if $protocol != 6 && $protocol != 17 || length($_[0]) < 58;
        my $port = unpack("x56 n", $_[0]);
        return $port == 53 && $to eq "\xFD" . "\0" x 14 . "\3" || $port == 547 && $protocol == 17 && $to =~ /^\xFF/;
    }
    return 1;
}

# to_slirp(PROTOCOL, AT, HOST, FRAME): to  slirp4netns' own host 2, name server 3 or broadcast 255; ports are at AT.
sub to_slirp {
    my ($protocol, $at, $host) = @_;
    return 1 if $protocol == 1; # ICMP
    return 0 if length($_[3]) < $at + 8;
    my ($from_port, $port) = unpack("x$at n n", $_[3]);
    return $port == 53 if $host == 3 && ($protocol == 6 || $protocol == 17);
    if ($protocol == 17) {
        return 1 if $port == 67 && ($host == 2 || $host == 255); # DHCP
        return $host == 2 && is_answer($port, $from_port);
    }
    return 0 if $protocol != 6 || $host != 2 || length($_[3]) < $at + 14;
    return (unpack("x$at x13 C", $_[3]) & 0x12) != 2; # not the SYN of a new connection
}

# Datagrams that came through a forward: "port of the host's side, port of the guest" => when, as long as slirp4netns
# remembers them. Source: libslirp socket.h SO_EXPIRE.
my ($ANSWER_S, $ANSWERS) = (240, 4096);
my %asked;

sub is_answer {
    my $key = pack("n n", @_);
    return defined $asked{$key} && $asked{$key} > time - $ANSWER_S;
}

# note_question(FRAME): a frame from slirp4netns.
sub note_question {
    return if length($_[0]) < 42 || unpack("x12 n", $_[0]) != 0x0800;
    my ($first, $fragment, $protocol, $from) = unpack("x14 C x5 n x1 C x2 N", $_[0]);
    return if $protocol != 17 || $from != 0x0A000202 || $fragment & 0x1FFF;
    %asked = () if keys %asked >= $ANSWERS;
    my $at = 14 + 4 * ($first & 15);
    $asked{unpack("x$at a4", $_[0])} = time if length($_[0]) >= $at + 8;
}

# Told once, and only while UML is there: at the machine's end all of us are killed in any order.
my $told = 0;
sub tell_loss {
    return if $told || $host || !$uml;
    $told = 1;
    my $tail = (split /\n/, $said)[-1];
    print STDERR "$name: vec$unit: slirp4netns has ended, and with it the network" . ($tail ? " ($tail)" : "") . "\n";
}

sub host_is_gone {
    close($host);
    undef $host;
    undef $to_host;
    tell_loss();
}

sub uml_is_gone {
    close($uml);
    undef $uml;
    undef $to_uml;
}

while (1) {
    my ($in, $out) = ("", "");
    vec($in, fileno($listener), 1) = 1;
    vec($in, fileno($output), 1) = 1 if $output;
    vec($in, fileno($uml), 1) = 1 if $uml && !defined $to_host;
    vec($in, fileno($host), 1) = 1 if $host && !defined $to_uml;
    vec($out, fileno($uml), 1) = 1 if defined $to_uml;
    vec($out, fileno($host), 1) = 1 if defined $to_host;
    select($in, $out, undef, 2);
    if (time >= $tick) {
        host_resolv();
        $tick = time + 2;
    }
    if ($output && vec($in, fileno($output), 1) && !listen_to($output)) {
        close($output);
        undef $output;
    }
    if (defined $to_host && vec($out, fileno($host), 1)) {
        my $done = sent($host, $to_host);
        if (!defined $done) { host_is_gone() }
        elsif ($done) { undef $to_host }
    }
    if (defined $to_uml && vec($out, fileno($uml), 1)) {
        my $done = sent($uml, $to_uml);
        if (!defined $done) { uml_is_gone() }
        elsif ($done) { undef $to_uml }
    }
    if ($host && !defined $to_uml && vec($in, fileno($host), 1)) {
        for (1 .. $BATCH) {
            my $got = sysread($host, my $frame, $FRAME);
            if (!$got) {
                host_is_gone() if defined $got || $! != EAGAIN && $! != EINTR;
                last;
            }
            next if !$uml; # nobody is there
            note_question($frame) if $loopback eq "replies";
            my $done = sent($uml, $frame);
            if (!defined $done) { uml_is_gone() }
            elsif (!$done) { $to_uml = $frame; last }
        }
    }
    if ($uml && !defined $to_host && vec($in, fileno($uml), 1)) {
        for (1 .. $BATCH) {
            my $got = sysread($uml, my $frame, $FRAME);
            if (!$got) {
                uml_is_gone() if defined $got || $! != EAGAIN && $! != EINTR;
                last;
            }
            next if !$host || $got < 14 || $loopback ne "open" && !passes($frame);
            my $done = sent($host, $frame);
            if (!defined $done) { host_is_gone() }
            elsif (!$done) { $to_host = $frame; last }
        }
    }
    if (vec($in, fileno($listener), 1) && accept(my $new, $listener)) {
        close($uml) if $uml; # its guest has rebooted, or taken the interface down and up
        $uml = $new;
        undef $to_uml;
        nonblocking($uml);
        tell_loss();
    }
}
