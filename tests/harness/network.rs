//! A network of this test alone: one namespace for each machine, on one bridge, that can be cut between
//! any two of them. Needs root, as everything that makes namespaces.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::tools;

/// `10.213.N.0/24`, one N for each network of this machine.
const NETWORKS: u8 = 250;

pub struct Network {
    number: u8,
    machines: u8,
}

fn ip(arguments: &str) -> Result<(), String> {
    ip_tool("ip", arguments)
}

fn ip_tool(tool: &str, arguments: &str) -> Result<(), String> {
    let mut command = Command::new(tool);
    command.args(arguments.split_whitespace());
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn must(arguments: &str) {
    ip(arguments).unwrap_or_else(|error| panic!("{error}"));
}

impl Network {
    /// Makes a network of so many machines, numbered from 0.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(machines: u8) -> Self {
        tools::need(&["ip", "nsenter", "setpriv", "tc"]);
        let first = u8::try_from(std::process::id() % u32::from(NETWORKS)).expect("a remainder");
        let numbers = (0..NETWORKS).map(|step| (u16::from(first) + u16::from(step)) % 250);
        let numbers = numbers.map(|number| u8::try_from(number).expect("below 250"));
        // Whoever made the bridge has the number.
        let taken = |number: &u8| ip(&format!("link add rvb{number} type bridge")).is_ok();
        let number = numbers.into_iter().find(taken).unwrap_or_else(|| {
            let error = ip("link add rvb0 type bridge").err().unwrap_or_default();
            panic!("no network could be made; it needs root: {error}")
        });
        let mut network = Self { number, machines: 0 };
        must(&format!("addr add 10.213.{number}.254/24 dev rvb{number}"));
        must(&format!("link set rvb{number} up"));
        for machine in 0..machines {
            network.machines = machine + 1;
            network.add(machine);
        }
        network
    }

    fn add(&self, machine: u8) {
        let (number, space) = (self.number, self.space(machine));
        // What a killed test left behind.
        ip(&format!("link del rv{number}v{machine}")).ok();
        ip(&format!("netns del {space}")).ok();
        must(&format!("netns add {space}"));
        must(&format!("link add rv{number}v{machine} type veth peer name eth0 netns {space}"));
        must(&format!("link set rv{number}v{machine} master rvb{number} up"));
        must(&format!("-n {space} addr add {}/24 dev eth0", self.address(machine)));
        must(&format!("-n {space} link set eth0 up"));
        must(&format!("-n {space} link set lo up"));
    }

    fn space(&self, machine: u8) -> String {
        format!("rv{}-{machine}", self.number)
    }

    #[must_use]
    pub fn address(&self, machine: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, machine + 1)
    }

    /// A command on a machine; it ends when the thread that starts it does.
    #[must_use]
    pub fn command(&self, machine: u8, program: &std::path::Path) -> Command {
        let mut command = Command::new("nsenter");
        // The network alone: what is mounted there is seen by the tests.
        command.arg(format!("--net=/run/netns/{}", self.space(machine)));
        command.args(["setpriv", "--pdeathsig", "KILL"]).arg(program);
        command
    }

    /// Nothing passes between the two any more.
    pub fn cut(&self, one: u8, other: u8) {
        self.block(one, other);
        self.block(other, one);
    }

    /// Nothing passes from one to the other: what the other sends still comes.
    pub fn block(&self, from: u8, to: u8) {
        must(&format!("-n {} route add blackhole {}/32", self.space(from), self.address(to)));
    }

    /// Nothing that others send reaches a machine: what it sends still comes.
    pub fn deafen(&self, machine: u8) {
        let others = (0..self.machines).filter(|&other| other != machine);
        others.for_each(|other| self.block(other, machine));
    }

    /// What a machine sends comes slowly, and what is too much for its line is lost.
    pub fn slow(&self, machine: u8) {
        let line = "tbf rate 400kbit burst 3kb limit 6kb";
        ip_tool("tc", &format!("-n {} qdisc replace dev eth0 root {line}", self.space(machine)))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Everything passes again between all.
    pub fn heal(&self) {
        for from in 0..self.machines {
            // An error says that its line was not slow.
            ip_tool("tc", &format!("-n {} qdisc del dev eth0 root", self.space(from))).ok();
            for to in (0..self.machines).filter(|to| *to != from) {
                // An error says that it was not blocked.
                let route = format!("route del blackhole {}/32", self.address(to));
                ip(&format!("-n {} {route}", self.space(from))).ok();
            }
        }
    }

    /// Nothing passes between two groups of machines.
    pub fn split(&self, some: &[u8], others: &[u8]) {
        for &one in some {
            others.iter().for_each(|&other| self.cut(one, other));
        }
    }

    /// Cuts a machine off from all other machines; the tests still reach it.
    pub fn isolate(&self, machine: u8) {
        for other in (0..self.machines).filter(|other| *other != machine) {
            self.cut(machine, other);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in 0..self.machines {
            // With its space the link would go only after a while.
            ip(&format!("link del rv{}v{machine}", self.number)).ok();
            ip(&format!("netns del {}", self.space(machine))).ok();
        }
        ip(&format!("link del rvb{}", self.number)).ok();
    }
}
