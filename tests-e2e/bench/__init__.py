"""The benchmarks: each measures one thing here and now, beside what it is to be compared with."""
