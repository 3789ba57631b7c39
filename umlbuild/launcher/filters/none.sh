# No filters of frames.

check_filters() { :; }

put_filters() { :; }
