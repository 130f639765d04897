//! Alarms as etcd's clients ask for them.

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::AlarmType;
use revfs_api::wire::etcdserverpb::alarm_request::AlarmAction;
use revfs_store::{Alarm, AlarmKind};
use tonic::Status;

use super::super::member::fail;
use crate::local::Local;

fn kind(number: i32) -> Result<Option<AlarmKind>, Status> {
    match AlarmType::try_from(number) {
        Ok(AlarmType::None) => Ok(None),
        Ok(AlarmType::Nospace) => Ok(Some(AlarmKind::NoSpace)),
        Ok(AlarmType::Corrupt) => Ok(Some(AlarmKind::Corrupt)),
        Err(_) => {
            let text = format!("alarm {number} is none of NOSPACE (1) and CORRUPT (2)");
            Err(Status::invalid_argument(text))
        }
    }
}

fn member(alarm: Alarm) -> pb::AlarmMember {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: alarm.member, alarm: kind.into() }
}

/// As etcd's status says it.
pub(super) fn text(alarm: Alarm) -> String {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    };
    format!("memberID:{} alarm:{kind} ", alarm.member)
}

/// Does what is asked for; the alarms that it was about.
pub(super) async fn answer(
    node: &Local,
    request: pb::AlarmRequest,
) -> Result<Vec<pb::AlarmMember>, Status> {
    let pb::AlarmRequest { action, member_id, alarm } = request;
    let kind = kind(alarm)?;
    let action = AlarmAction::try_from(action).map_err(|_| {
        let text = format!("alarm action {action} is none of GET, ACTIVATE and DEACTIVATE");
        Status::invalid_argument(text)
    })?;
    let is_raised = match action {
        AlarmAction::Get => {
            let alarms = node.alarms().map_err(fail)?.into_iter();
            let asked = alarms.filter(|alarm| kind.is_none_or(|kind| alarm.kind == kind));
            return Ok(asked.map(member).collect());
        }
        AlarmAction::Activate => true,
        AlarmAction::Deactivate => false,
    };
    let Some(kind) = kind else { return Ok(Vec::new()) };
    let alarm = Alarm { member: member_id, kind };
    let changed = node.set_alarm(alarm, is_raised).await.map_err(fail)?;
    // One that is raised already is told as well, one that was not there is not.
    Ok(if changed || is_raised { vec![member(alarm)] } else { Vec::new() })
}
