//! Finds free ports for servers.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;

/// Below the range from which systems take the ports of outgoing connections (from 32768 on Linux). In that range, a
/// client that keeps trying to reach a stopped server ends up connected to itself, and takes the port for good.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port on which nothing listens at this moment. Two callers may get the same one: try again if the bind fails.
pub(crate) fn free() -> anyhow::Result<u16> {
    (0..200)
        .map(|_| fastrand::u16(RANGE))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .context("no free port on 127.0.0.1")
}
