//! The qemu-img grammar: option tables, numbers, key=value lists, JSON names.
