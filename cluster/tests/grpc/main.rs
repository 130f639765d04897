//! The services and their client. `scripted` is a key space that says what a test wants: it proves the
//! wiring. What the services mean is proven on a real node.

mod auth;
mod certificates;
mod client;
mod client_etcd;
mod client_failover;
mod client_watch;
mod conformance;
mod etcdctl;
mod gateway;
mod health;
mod http;
mod kv;
mod lease_keeper;
mod maintenance;
mod malformed;
mod mirror;
mod node;
mod oracle;
mod refusing;
mod remote;
mod scripted;
mod serve;
mod tls;
mod turns;
mod watch;
