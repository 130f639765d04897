//! Every way in which a proposal can end: how often the change was applied, what its caller was told, and that
//! the two agree.
//!
//! [`injected`] has openraft's answer be each one that there is, where the leader is and behind a member that
//! forwards; [`causes`] has the causes happen: held and broken disks, replication that ends, an entry that another
//! leader overwrites. What becomes of a forwarded change on its line is in [`crate::peer`].

mod causes;
mod injected;
mod rig;
mod versions;
