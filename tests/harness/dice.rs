//! Random choices that can be repeated: everything follows from one printed seed.
//!
//! `REVFS_SEED=N` repeats a run. The generator is SplitMix64: 64 bits of state, good enough to pick
//! moments and names, and the same on every machine.

/// The environment variable that fixes the seed.
pub const SEED_VARIABLE: &str = "REVFS_SEED";

pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice of the seed in the environment, or of a new one; prints it under the name of the test.
    ///
    /// # Panics
    /// If the variable is set and not a number.
    #[must_use]
    pub fn new(test: &str) -> Self {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => text
                .parse()
                .unwrap_or_else(|error| panic!("{SEED_VARIABLE}={text}: {error}; give a number")),
            Err(_) => u64::from(std::process::id()) << 32 | u64::from(clock_nanos()),
        };
        println!("{test}: {SEED_VARIABLE}={seed}");
        Self::from_seed(seed)
    }

    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below 0");
        self.roll() % bound
    }
}

fn clock_nanos() -> u32 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (mut left, mut right) = (Dice::from_seed(7), Dice::from_seed(7));
        let rolls: Vec<u64> = (0..100).map(|_| left.below(1_000)).collect();
        assert_eq!(rolls, (0..100).map(|_| right.below(1_000)).collect::<Vec<_>>());
        assert!(rolls.iter().any(|&roll| roll != rolls[0]), "the dice are not loaded");
    }
}
