# What may be shared.

# check_share PATH: what the guest can read or write there must not be what keeps it in.
check_share() {
    [ -d "$1" ] || refuse "the share $1: there is no such directory" "mkdir it, or name another: --share DIR=PATH"
    real=$(readlink -f -- "$1")/
    while IFS=: read -r _ _ account _ _ home _; do
        [ "$account" -eq 0 ] || [ "$account" -ge 1000 ] || continue
        within "$home" && refuse "the share $1: contains the home directory $home" "share a directory below it"
    done </etc/passwd
    for path in "$bundle" "${XDG_STATE_HOME:-${HOME:-}/.local/state}/umlbuild" "${cow:-$bundle}" "${HOME:-}"; do
        within "$path" && refuse "the share $1: contains $path, which the guest must not reach" "share another directory"
    done
}

# within PATH: whether it lies in (or is) the directory $real.
within() {
    case $(readlink -f -- "${1:-/nonexistent}")/ in
        //) return 1 ;; # accounts without a home
        "$real"* | "$real"/*) return 0 ;;
    esac
    [ "$real" = // ]
}
