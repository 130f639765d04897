//! Members that come and go while a cluster runs, by what an operator types.

use crate::{Cluster, wait};

impl Cluster {
    /// What `etcdctl member list` says of each member, asked at one.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn listed(&self, asked: u8) -> Vec<String> {
        let listed = self.ctl(&self.client(asked), &["member", "list"]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Waits until so many members vote, by what one of them says.
    ///
    /// # Panics
    /// If they do not in time.
    pub fn wait_for_voters(&self, asked: u8, count: usize) {
        let votes = |line: &&str| line.contains(", started, ") && line.ends_with(", false");
        wait::until_true("voters", wait::LIMIT, || {
            let listed = self.run(&self.client(asked), &["member", "list"]);
            String::from_utf8_lossy(&listed.stdout).lines().filter(votes).count() == count
        });
    }

    /// Adds a member that votes once it is there; its id.
    ///
    /// # Panics
    /// If it is refused.
    #[expect(clippy::must_use_candidate, reason = "it is called to add")]
    pub fn add(&self, asked: u8, name: &str, url: &str) -> String {
        let url = format!("--peer-urls={url}");
        let said = self.ctl(&self.client(asked), &["member", "add", name, &url]);
        let id = said.split_whitespace().nth(1);
        id.unwrap_or_else(|| panic!("it says no id: {said}")).to_owned()
    }

    /// Adds the member of a machine that has none yet, and starts it; its id.
    ///
    /// # Panics
    /// If it is refused.
    pub fn add_machine(&mut self, asked: u8, machine: u8) -> String {
        let id = self.add(asked, &format!("m{machine}"), &self.peer_url(machine));
        self.start_joining(machine);
        id
    }

    /// The same with another role than a voter's, and without its id.
    ///
    /// # Panics
    /// If it is refused for long.
    pub fn add_machine_as(&mut self, asked: u8, machine: u8, role: &str) {
        let url = self.peer_url(machine);
        // On a busy machine leaders change by themselves; repeated, what has happened is refused.
        wait::until_true("its addition", wait::LIMIT, || {
            let words = ["member", "add", &url, "--role", role];
            let output = self.revfs(&self.client(asked), &words).output().expect("it runs");
            output.status.success() || String::from_utf8_lossy(&output.stderr).contains("already")
        });
        self.start_joining(machine);
    }

    fn start_joining(&mut self, machine: u8) {
        let mut settings = self.founder_settings();
        let peer = format!("m{machine}={}", self.peer_url(machine));
        if !settings[0].contains(&peer) {
            settings[0].push_str(&format!(",{peer}"));
        }
        settings.push("--initial-cluster-state=existing".to_owned());
        self.start_with(machine, &settings);
    }

    /// A member loses its disk: it is removed, and comes back with an empty one, as a voter or as a learner that is
    /// promoted. What is asked of `asked` is asked again until it is done.
    ///
    /// # Panics
    /// If it is not back in time.
    pub fn wipe_and_rejoin(&mut self, asked: u8, member: u8, as_learner: bool) {
        let client = self.client(asked);
        let name = format!("m{member}");
        let url = self.peer_url(member);
        let lines = |cluster: &Self| -> Vec<Vec<String>> {
            let listed = cluster.run(&client, &["member", "list"]).stdout;
            let listed = String::from_utf8_lossy(&listed).into_owned();
            let words = |line: &str| line.split(", ").map(str::to_owned).collect();
            listed.lines().map(words).collect()
        };
        let by_url = |cluster: &Self| lines(cluster).into_iter().find(|line| line[3] == url);
        let old = wait::until("the member's number", wait::LIMIT, || by_url(self)).remove(0);
        self.kill(member);
        wait::until_true("its removal", wait::LIMIT, || {
            drop(self.run(&client, &["member", "remove", &old]));
            let listed = lines(self);
            !listed.is_empty() && listed.iter().all(|line| line[0] != old)
        });
        for entry in std::fs::read_dir(self.data_dir(member)).expect("it ran") {
            let path = entry.expect("it can be read").path();
            let is_directory = path.is_dir();
            if is_directory { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let peer_urls = format!("--peer-urls={url}");
        let mut add = vec!["member", "add", &name, &peer_urls];
        add.extend(as_learner.then_some("--learner"));
        let new = wait::until("its addition", wait::LIMIT, || {
            drop(self.run(&client, &add));
            by_url(self).filter(|line| line[0] != old)
        });
        let mut settings = self.founder_settings();
        settings.push("--initial-cluster-state=existing".to_owned());
        self.start_with(member, &settings);
        wait::until_true("its vote", wait::LIMIT, || {
            if as_learner {
                drop(self.run(&client, &["member", "promote", &new[0]]));
            }
            let votes = |line: &Vec<String>| {
                line[1] == "started" && line.last().is_some_and(|last| last == "false")
            };
            by_url(self).as_ref().is_some_and(votes)
        });
    }

    /// # Panics
    /// If it is refused.
    pub fn remove(&self, asked: u8, id: &str) {
        self.ctl(&self.client(asked), &["member", "remove", id]);
    }
}
