//! A worker that attacks its cell, for the wall tests alone.
