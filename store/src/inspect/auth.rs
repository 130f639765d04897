//! The invariants of users and roles: that each role which a user has exists, and that root can get in.

use super::Inspector;
use super::invariants::{Judge, Report};
use crate::auth::ROOT;
use crate::backup::OnProgress;
use crate::error::OpenError;
use crate::schema::{AUTH_ROW, Tree, decode_auth, decode_role, decode_user};

impl Inspector {
    pub(super) fn check_auth(
        &self,
        progress: OnProgress<'_>,
        report: Report<'_>,
    ) -> Result<(), OpenError> {
        let mut has_root = false;
        self.walk(Tree::Users, progress, &mut *report, |judge, row, value| {
            let Some(user) = judge.read(decode_user(row, value)) else { return Ok(()) };
            has_root |= user.name == ROOT && user.is_root();
            for role in user.roles.iter().filter(|role| *role != ROOT) {
                if self.get(Tree::Roles, role.as_bytes())?.is_none() {
                    judge.wrong(row, format!("its role {role} does not exist"));
                }
            }
            Ok(())
        })?;
        self.walk(Tree::Roles, progress, &mut *report, |judge, row, value| {
            judge.read(decode_role(row, value));
            Ok(())
        })?;
        let Some(value) = self.get(Tree::Counters, AUTH_ROW)? else { return Ok(()) };
        // A damaged row is reported with the other counters.
        let is_enabled = decode_auth(AUTH_ROW, value).is_ok_and(|(secret, _)| secret.is_some());
        if is_enabled && !has_root {
            Judge { tree: Tree::Counters, report }
                .wrong(AUTH_ROW, "authentication is enabled, but no user root has the role root");
        }
        Ok(())
    }
}
