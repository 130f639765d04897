//! What a mount promises those who use it, where they may choose: by flags of `up` and `mount`, and by
//! settings of `serve`.

use clap::ValueEnum;
use revfs_fs::filesystem::{CommitAt, MountOptions};
use revfs_fs::linear::Consistency;
use revfs_fs::local_names::{LOCAL_NAMES, LocalNames};

/// The options of `up` and `mount`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What it promises")]
pub(crate) struct Promises {
    /// watch: nothing older than was shown before; linear: all that was acknowledged anywhere, each time asked for
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    consistency: ConsistencyWord,

    /// close: a file is a revision when its writer closes or syncs it; write: each write is one
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    commit: CommitWord,

    /// Refuse (ESTALE) to rewrite a file from empty that has changed elsewhere since it was opened
    #[arg(long)]
    cas: bool,

    /// Names of files that stay in this mount until they are renamed, colons between them; empty: none
    #[arg(long, value_name = "PATTERNS", default_value = LOCAL_NAMES)]
    local: LocalNames,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ConsistencyWord {
    #[default]
    Watch,
    Linear,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum CommitWord {
    #[default]
    Close,
    Write,
}

impl CommitWord {
    pub(crate) fn meaning(self) -> CommitAt {
        match self {
            Self::Close => CommitAt::Close,
            Self::Write => CommitAt::Write,
        }
    }
}

impl ConsistencyWord {
    pub(crate) fn meaning(self) -> Consistency {
        match self {
            Self::Watch => Consistency::Watch,
            Self::Linear => Consistency::Linear,
        }
    }
}

impl Promises {
    pub(crate) fn over(&self, options: MountOptions) -> MountOptions {
        MountOptions {
            consistency: self.consistency.meaning(),
            commit: self.commit.meaning(),
            compare_and_swap: self.cas,
            local: self.local.clone(),
            ..options
        }
    }
}

/// A word of the configuration.
pub(crate) fn word<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        names.join(" or ")
    })
}
