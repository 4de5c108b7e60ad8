//! Opens, locks, resolves and moves bytes for a cell, and interprets none of them.
