# The uplink of one interface with `transport = "user"`: slirp4netns and what stands between UML and it. Made by umlbuild.
#
#   perl -e TEXT NAME UNIT DIRECTORY LOOPBACK FORWARDS HELPER SLIRP4NETNS…
#
# slirp4netns takes one connection in its life, makes its api socket only after that, and turns in circles when the
# other side closes. So it talks to us from before UML starts until UML ends, and UML, whose guest may take the
# interface down and up or reboot, comes and goes at a socket of ours. The frames are moved by the bundle's HELPER
# (`jail relay`), which gets both sockets.
#
# LOOPBACK: what of the host's loopback the guest may reach.
#   open     everything.
#   shut     nothing; slirp4netns itself is told so (--disable-host-loopback), which closes 10.0.2.2. But what guest root
#            sends to 127.0.0.1 itself gets through slirp4netns 1.2.0 (measured): the helper drops that.
#   replies  nothing but answers to what came through a port forward. With --disable-host-loopback slirp4netns drops
#            the guest's answers to datagrams from the loopback (measured), so UDP forwards go without, and all is the helper's.
#
# In DIRECTORY: `uml` we listen for UML; `slirp/frames` and `slirp/api` are slirp4netns'; `resolv.conf` is the host's,
# kept up to date (the host's own is often replaced as a whole, which a bind mount would not show). Then `ready` is
# made there, or `why` with one sentence, and we end. FORWARDS: "tcp:127.0.0.1:8080:10.0.2.15:80 …".
#
# Needs perl-base. Source: slirp4netns 1.2.0 main.c child_bess, slirp4netns.c do_slirp, api.c.

use strict;
use warnings;
use Fcntl qw(F_SETFD);
use POSIX ();
use Socket;

my ($name, $unit, $dir, $loopback, $forwards, $helper, @command) = @ARGV;
my $START_S = 10;     # for slirp4netns to listen, and for each of its answers
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
for my $forward (@forwards) {
    my ($protocol, $address, $port, $guest, $guest_port) = split /:/, $forward;
    my $answer = asked(qq({"execute":"add_hostfwd","arguments":{"proto":"$protocol","host_addr":"$address",)
            . qq("host_port":$port,"guest_addr":"$guest","guest_port":$guest_port}}), $output);
    next if $answer =~ /"return"/;
    $said = $answer ? "" : $said;
    fail($answer ? "taken $protocol $address $port" : "slirp4netns does not answer");
}

# --- frames ---------------------------------------------------------------------------------------------

# The helper moves them until nobody reads what it says. That is "ready", and perhaps "lost": slirp4netns has ended while
# UML is there. (At the machine's end all of us are killed in any order.)
pipe(my $word, my $its_end) or fail("pipe: $!");
my $relay = fork;
defined $relay or fail("fork: $!");
if (!$relay) {
    open(STDOUT, ">&", $its_end);
    fcntl($_, F_SETFD, 0) for $listener, $host;
    exec {$helper} $helper, "relay", fileno($listener), fileno($host), $loopback;
    exit 127;
}
close($_) for $its_end, $listener, $host;
my $waiting = "";
vec($waiting, fileno($word), 1) = 1;
select($waiting, undef, undef, $START_S) > 0 && sysread($word, my $first, 16) or fail("$helper cannot be started");
open(my $ready, ">", "$dir/ready") or fail("$dir/ready: $!");
close($ready);
while (1) {
    my $ready = "";
    vec($ready, fileno($word), 1) = 1;
    vec($ready, fileno($output), 1) = 1 if $output;
    select($ready, undef, undef, 2);
    host_resolv();
    if ($output && vec($ready, fileno($output), 1) && !listen_to($output)) {
        close($output);
        undef $output;
    }
    if (vec($ready, fileno($word), 1)) {
        sysread($word, my $lost, 16) or exit 1;
        my $tail = (split /\n/, $said)[-1];
        print STDERR "$name: vec$unit: slirp4netns has ended, and with it the network" . ($tail ? " ($tail)" : "") . "\n";
    }
}
