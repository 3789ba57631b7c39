# COW files of UML, in which the guest's writes to its root are kept. Format 3, big-endian.
# Source: arch/um/drivers/cow_user.c.

# A COW file keeps only what differs from the image that it was made for; on another one it is garbage.
check_cow() {
    [ -f "$cow" ] || refuse "$cow: is not a file" "give another --cow FILE"
    { [ -r "$cow" ] && [ -w "$cow" ]; } || refuse "$cow: cannot be read and written" "chmod u+rw that file"
    # shellcheck disable=SC2046  # 32 numbers
    set -- $(od -A n -v -t u1 -N 32 -- "$cow")
    [ $# -eq 32 ] && [ "$1 $2 $3 $4 $5 $6 $7 $8" = "79 79 79 77 0 0 0 3" ] ||
        refuse "$cow: is not a COW file of UML" "give another --cow FILE, or remove this one"
    mtime=$((($9 << 24) + (${10} << 16) + (${11} << 8) + ${12}))
    size=$(((${13} << 56) + (${14} << 48) + (${15} << 40) + (${16} << 32) + (${17} << 24) + (${18} << 16) + (${19} << 8) + ${20}))
    if [ "$size" != "$image_size" ]; then
        refuse "$cow: belongs to another image ($size bytes; $image has $image_size)" \
            "start that image's bundle, give another --cow FILE, or remove it: what was written is lost"
    fi
    if [ "$mtime" != "$image_mtime" ]; then
        [ "$mtime" = "$IMAGE_MTIME" ] && refuse \
            "$image: lost its time stamp, by which $cow knows it" \
            "touch -d @$IMAGE_MTIME that image (copy bundles with cp -a)"
        refuse "$cow: belongs to another image (of time $mtime; $image is of $image_mtime)" \
            "start that image's bundle, give another --cow FILE, or remove it: what was written is lost"
    fi
}

big_endian() { # VALUE BYTES
    shift_by=$((($2 - 1) * 8))
    while [ "$shift_by" -ge 0 ]; do
        byte=$((($1 >> shift_by) & 255)) # in octal without a process for each
        printf '%b' "\\0$((byte >> 6))$((byte >> 3 & 7))$((byte & 7))"
        shift_by=$((shift_by - 8))
    done
}

# COW format 3: header (4128 bytes), bitmap at 8192, data behind it. UML could make it, too, but puts
# uninitialised memory into it, and a path that is gone tomorrow.
make_cow() {
    bitmap=$(((image_size + 4095) / 4096))
    data=$(((8192 + bitmap + 4095) / 4096 * 4096))
    # Less than this and the guest would meet I/O errors while it boots.
    needed_kib=$((data / 1024 + 16384))
    free_kib=$(free_in "${cow%/*}")
    [ -z "$free_kib" ] || [ "$free_kib" -ge "$needed_kib" ] || refuse \
        "${cow%/*}: has $((free_kib / 1024)) MiB free, the guest's writes need $((needed_kib / 1024)) MiB to begin with" \
        "free some space there, or use ${ephemeral:+TMPDIR or }--cow FILE"
    {
        printf OOOM
        big_endian 3 4
        big_endian "$image_mtime" 4
        big_endian "$image_size" 8
        big_endian 512 4
        big_endian 4096 4
        big_endian 0 4
        backing
    } 2>/dev/null >"$cow.new" && truncate -s $((data + image_size)) -- "$cow.new" && mv -f -- "$cow.new" "$cow" || {
            rm -f -- "$cow.new"
            refuse "$cow: cannot be made" "free some space there, or use --cow FILE"
        }
}
