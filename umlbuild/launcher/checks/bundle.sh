# Whether the bundle is the one that was built.

# The whole bundle is read and compared once; after that its files are known by size, times and inode.
# SUMS is what cksum says of each: number, size, name. Rows with two numbers more are of an image: so many MiB from the
# first number on, and the rest is holes. Reading those would take seconds, and as much memory as they are long.
check_bundle() {
    [ -n "$SUMS" ] || return 0
    files=
    while read -r _ _ name first _; do [ -n "$first" ] || files="$files $name"; done <<END
$SUMS
END
    # shellcheck disable=SC2086  # plain names
    seen=$(cd "$bundle" && stat -c '%n %d %i %s %y' $files run 2>/dev/null | cksum)
    checked=${cache:+$cache/umlbuild/checked-$NAME-${seen%% *}}
    if [ -z "$checked" ] || [ ! -e "$checked" ]; then
        wrong=$(cd "$bundle" && first_wrong_file)
        if [ -n "$wrong" ]; then
            refuse "$bundle/$wrong: is not the file that was built" "copy or build the bundle again"
        fi
        [ -z "$checked" ] || [ -n "$dry_run" ] || { mkdir -p "${checked%/*}" && : >"$checked"; } 2>/dev/null || :
    fi
}

first_wrong_file() { # prints its name
    sparse=
    while read -r sum size name first count; do
        if [ -n "$first" ]; then
            case " $sparse " in *" $name "*) ;; *) continue ;; esac
            seen=$(dd if="$name" bs=1048576 skip="$first" count="$count" 2>/dev/null | cksum)
        elif has_holes "$name" "$size"; then
            sparse="$sparse $name"
            continue
        else
            seen=$({ cksum <"$name"; } 2>/dev/null) || :
        fi
        [ "$seen" = "$sum $size" ] || { printf '%s\n' "$name" && return; }
    done <<END
$SUMS
END
}

has_holes() { # NAME SIZE: is it as large as it was built, and nothing beside the runs that SUMS has of it takes up room?
    used=
    while read -r _ length of first _; do
        [ "$of" != "$1" ] || [ -z "$first" ] || used=$((used + length))
    done <<END
$SUMS
END
    # shellcheck disable=SC2046  # two numbers
    set -- "$2" $(stat -L -c '%s %b' -- "$1" 2>/dev/null)
    [ -n "$used" ] && [ "$1" = "${2-}" ] && [ $((512 * $3)) -le "$used" ]
}
