# What sandboxes have in common in which UML sees the host's own files, under their names.

sandbox_watch() {
    touch -t 200001010000 "$inst/u" # UML makes its directory there when it boots: that changes this time
    untouched=$(stat -c %Y "$inst/u")
}

sandbox_exec() { exec "$@"; }

booted() { [ "$(stat -c %Y "$inst/u")" != "$untouched" ]; }
