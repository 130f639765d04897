//! Users and roles: etcd's passwords are bcrypt's, as ours are, so that everyone logs in as before.

use revfs_store::{AuthChange, Body, PasswordHash, TOKEN_SECRET_BYTES, TokenSecret};

use super::rows::{permission, text};
use super::target::Target;
use super::{EtcdImportError, Survey};
use crate::config::StartError;

pub(super) fn users_and_roles(target: &mut Target, survey: &Survey) -> Result<(), EtcdImportError> {
    for role in &survey.roles {
        let Ok(name) = text(&role.name) else { continue };
        let what = format!("role {name}");
        let body = Body::Auth(AuthChange::RoleAdd { name: name.clone() });
        if !target.try_run(&what, body)? {
            continue;
        }
        for from in &role.permissions {
            let Some(permission) = permission(from) else {
                target.notes.push(format!("a permission of role {name} is of an unknown kind"));
                continue;
            };
            let change = AuthChange::RoleGrantPermission { name: name.clone(), permission };
            target.try_run(&format!("a permission of {what}"), Body::Auth(change))?;
        }
    }
    for user in &survey.users {
        let Ok(name) = text(&user.name) else { continue };
        let is_without = user.options.as_ref().is_some_and(|options| options.no_password);
        let password = (!is_without).then(|| PasswordHash(user.password.clone()));
        let body = Body::Auth(AuthChange::UserAdd { name: name.clone(), password });
        if !target.try_run(&format!("user {name}"), body)? {
            continue;
        }
        for role in &user.roles {
            let change = AuthChange::UserGrantRole { name: name.clone(), role: role.clone() };
            target.try_run(&format!("role {role} of user {name}"), Body::Auth(change))?;
        }
    }
    Ok(())
}

/// Everyone has to log in again: tokens are signed with something new.
pub(super) fn enable(target: &mut Target, survey: &Survey) -> Result<(), EtcdImportError> {
    if !survey.is_auth_enabled {
        return Ok(());
    }
    let mut secret = [0; TOKEN_SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|error| {
        StartError::io("choose a secret for", "tokens", std::io::Error::other(error))
    })?;
    let token_secret = TokenSecret(secret);
    target.try_run("authentication", Body::Auth(AuthChange::Enable { token_secret })).map(drop)
}
