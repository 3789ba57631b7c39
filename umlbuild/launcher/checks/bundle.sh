# Whether the bundle is the one that was built.

# The whole bundle is read and compared once; after that its files are known by size, times and inode.
# SUMS is what cksum says of each: number, size, name.
check_bundle() {
    [ -n "$SUMS" ] || return 0
    files=
    while read -r _ _ name; do files="$files $name"; done <<END
$SUMS
END
    # shellcheck disable=SC2086  # plain names
    seen=$(cd "$bundle" && stat -c '%n %d %i %s %y' $files run 2>/dev/null | cksum)
    checked=${cache:+$cache/umlbuild/checked-$NAME-${seen%% *}}
    if [ -z "$checked" ] || [ ! -e "$checked" ]; then
        # shellcheck disable=SC2086
        sums=$(cd "$bundle" && cksum $files 2>/dev/null)
        if [ "$sums" != "$SUMS" ]; then
            wrong=$(printf '%s\n' "$SUMS" | grep -vxF -e "$sums" | head -n 1 | cut -d ' ' -f 3-)
            refuse "$bundle/$wrong: is not the file that was built" "copy or build the bundle again"
        fi
        [ -z "$checked" ] || [ -n "$dry_run" ] || { mkdir -p "${checked%/*}" && : >"$checked"; } 2>/dev/null || :
    fi
}
