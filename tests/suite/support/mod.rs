//! Holds what the tests stand on: servers of their own, the real binary, and patience with a limit.
//!
//! - [`Redis`] and [`Mongo`] start a server on a free port with its data in a temporary folder, and can stop, kill,
//!   pause and restart it. `shared()` takes the user's server instead, if one is named in the environment.
//! - [`Cluster`] starts a Redis Cluster, and finds the node of a key.
//! - [`Proxy`] stands in front of a server and fails as networks do; [`Forge`] stands in front of MongoDB and answers as
//!   other servers, or one in trouble, would.
//! - [`Launch`] starts the daemon, [`Tidegate`] is one that runs.
//! - [`Browser`] is a real one without a window, [`Tab`] a page in it.
//! - [`eventually`] waits for a condition; [`Metrics`] and [`assert_accounting`] check what the daemon says of itself.
//!
//! Whatever was started ends with the test: on drop, on panic, and where `setpriv` exists even if the runner is killed.
//! Functions return errors rather than panic, because the demo uses them too.
#![allow(dead_code, unused_imports, reason = "shared by the tests and the demo; each uses a part")]

mod browser;
mod cluster;
mod cluster_load;
mod documents;
mod forge;
mod http;
mod metrics;
mod mongo;
mod names;
mod port;
mod process;
mod prometheus;
mod proxy;
mod queue;
mod redis;
mod tidegate;
mod tls;
mod wait;

pub(crate) use self::browser::{Browser, Tab};
pub(crate) use self::cluster::{Cluster, ClusterClient};
pub(crate) use self::cluster_load::{Compared, Load, Pushed, Wait};
pub(crate) use self::documents::{count, document, documents};
pub(crate) use self::forge::{Code, Forge, InForce, On, Rule, Statement, command_error, write_error};
pub(crate) use self::metrics::{Metrics, assert_accounting, check_accounting};
pub(crate) use self::mongo::{Durability, Mongo};
pub(crate) use self::names::unique;
pub(crate) use self::port::free as free_port;
pub(crate) use self::process::{Process, command};
pub(crate) use self::prometheus::{Prometheus, promtool_command};
pub(crate) use self::proxy::{Flow, Proxy};
pub(crate) use self::queue::{Group, add, add_at_once, dead_letters, group, length, push};
pub(crate) use self::redis::{Aof, Redis};
pub(crate) use self::tidegate::{Exited, Launch, REST, Tidegate, tidegate_command};
pub(crate) use self::tls::{Authority, Issued, Tls};
pub(crate) use self::wait::{eventually, try_eventually};
