"""The only place that writes LLVM IR: vectors, register tiles, epilogues, and how their machine code is cached."""
