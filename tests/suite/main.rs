//! One binary for every test that starts a real process or a real mount; one file per theme.
