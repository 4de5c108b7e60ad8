//! The program inside a cell: dispatch, budget, port; and its start-up, the only unsafe code.
