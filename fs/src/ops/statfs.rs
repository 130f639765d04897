//! STATFS: how much room there is.

use crate::filesystem::{Answer, Filesystem};

/// In blocks of [`Statistics::BLOCK_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    pub blocks: u64,
    pub free: u64,
}

impl Statistics {
    pub const BLOCK_BYTES: u32 = 4096;
}

impl Filesystem {
    /// # Errors
    /// What the key space answers.
    pub async fn statfs(&self) -> Answer<Statistics> {
        let status = self.within(self.keys.status()).await?;
        let block = u64::from(Statistics::BLOCK_BYTES);
        let free = status.disk_free_bytes / block;
        let used = (status.store_bytes_in_use + status.log_bytes).div_ceil(block);
        Ok(Statistics { blocks: used + free, free })
    }
}
