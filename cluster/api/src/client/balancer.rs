//! Which node a request goes to: the next one in turn.
//!
//! Each endpoint has one channel. Nothing is assumed of a node but what its last request showed: one
//! that did not answer, or refused for what it is, comes after the others for a while, so that a dead
//! node costs one request its time and not one in three.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tonic::transport::Channel;

use super::connection::channel;
use super::endpoint::{Endpoint, Endpoints};
use super::settings::Settings;
use crate::keyspace::Result;

/// An endpoint and its channel.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    made: Mutex<Made>,
    /// Until when others come first.
    passed_over: Mutex<Option<Instant>>,
}

/// A channel, and what it was made with.
#[derive(Debug)]
struct Made {
    channel: Channel,
    settings: Settings,
}

impl Node {
    fn new(endpoint: Endpoint, settings: Settings) -> Result<Self> {
        let made = Made { channel: channel(&endpoint, &settings)?, settings };
        Ok(Self { endpoint, made: Mutex::new(made), passed_over: Mutex::default() })
    }

    pub(super) fn channel(&self) -> Channel {
        self.made.lock().channel.clone()
    }

    /// It did not do what it should. If files of certificates have changed since, that may be why.
    pub(super) fn pass_over(&self, time: Duration) {
        *self.passed_over.lock() = Some(Instant::now() + time);
        if !matches!(self.endpoint, Endpoint::Tcp { is_secure: true, .. }) {
            return;
        }
        let mut made = self.made.lock();
        let Some(tls) = made.settings.tls.renewed() else { return };
        let settings = Settings { tls, ..made.settings.clone() };
        // Files that do not fit together yet are looked at again the next time.
        if let Ok(channel) = channel(&self.endpoint, &settings) {
            *made = Made { channel, settings };
        }
    }

    pub(super) fn answered(&self) {
        *self.passed_over.lock() = None;
    }

    fn is_passed_over(&self, now: Instant) -> bool {
        self.passed_over.lock().is_some_and(|until| now < until)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Balancer {
    nodes: RwLock<Vec<Arc<Node>>>,
    turn: AtomicUsize,
}

impl Balancer {
    pub(super) fn new(endpoints: &Endpoints, settings: &Settings) -> Result<Self> {
        let this = Self { nodes: RwLock::default(), turn: AtomicUsize::new(0) };
        this.set(endpoints, settings)?;
        Ok(this)
    }

    /// Other endpoints from now on. Those that stay keep their connections; the others' end with the
    /// requests that are under way on them.
    pub(super) fn set(&self, endpoints: &Endpoints, settings: &Settings) -> Result<()> {
        let before = self.nodes.read().clone();
        let node = |endpoint: &Endpoint| {
            if let Some(known) = before.iter().find(|node| node.endpoint == *endpoint) {
                return Ok(Arc::clone(known));
            }
            Node::new(endpoint.clone(), settings.clone()).map(Arc::new)
        };
        *self.nodes.write() = endpoints.iter().map(node).collect::<Result<_>>()?;
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.nodes.read().len()
    }

    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.nodes.read().iter().map(|node| node.endpoint.clone()).collect()
    }

    /// The next node; another one than `last`, if there is one.
    pub(super) fn next(&self, last: Option<&Arc<Node>>) -> Arc<Node> {
        let nodes = self.nodes.read();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let rank = |node: &Arc<Node>| {
            (last.is_some_and(|last| Arc::ptr_eq(last, node)), node.is_passed_over(now))
        };
        let in_turn =
            (0..nodes.len()).map(|number| &nodes[(turn.wrapping_add(number)) % nodes.len()]);
        // The first of equals.
        Arc::clone(in_turn.min_by_key(|node| rank(node)).expect("there is an endpoint at least"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(text: &str) -> Balancer {
        Balancer::new(&text.parse().unwrap(), &Settings::default()).unwrap()
    }

    fn turns(balancer: &Balancer, count: usize) -> Vec<String> {
        (0..count).map(|_| balancer.next(None).endpoint.to_string()).collect()
    }

    #[tokio::test]
    async fn requests_go_to_all_in_turn_and_pass_over_who_did_not_answer() {
        let balancer = balancer("a:1,b:1,c:1");
        let (a, b, c) = ("http://a:1", "http://b:1", "http://c:1");
        assert_eq!(turns(&balancer, 4), [a, b, c, a]);
        let failed = balancer.next(None);
        assert_eq!(failed.endpoint.to_string(), b);
        failed.pass_over(Duration::from_secs(60));
        let mut others = turns(&balancer, 6);
        others.sort();
        others.dedup();
        assert_eq!(others, [a, c]);
        failed.answered();
        assert!(turns(&balancer, 3).contains(&b.to_owned()));
    }

    #[tokio::test]
    async fn a_repetition_goes_elsewhere_and_with_nobody_else_to_the_same() {
        let several = balancer("a:1,b:1");
        let first = several.next(None);
        let other = several.next(Some(&first));
        assert_ne!(first.endpoint, other.endpoint);
        // Also if the other one is no better.
        other.pass_over(Duration::from_secs(60));
        assert_eq!(several.next(Some(&first)).endpoint, other.endpoint);
        let one = balancer("a:1");
        let only = one.next(None);
        only.pass_over(Duration::from_secs(60));
        assert_eq!(one.next(Some(&only)).endpoint, only.endpoint);
    }

    #[tokio::test]
    async fn endpoints_that_stay_keep_their_connection() {
        let balancer = balancer("a:1,b:1");
        let a = balancer.next(None);
        balancer.set(&"a:1,c:1".parse().unwrap(), &Settings::default()).unwrap();
        let found: Vec<String> = balancer.endpoints().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["http://a:1", "http://c:1"]);
        assert!((0..2).any(|_| Arc::ptr_eq(&balancer.next(None), &a)));
    }
}
