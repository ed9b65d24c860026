//! The daemon as its users see it: the real binary against real servers. One binary, so that it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop there")]

mod support;

mod support_smoke;
