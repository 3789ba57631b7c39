"""Classic BPF: programs as data, checked, read aloud, and run. Pure; the kernel and libpcap are its judges (tests)."""
