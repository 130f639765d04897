//! Who calls whom: in the metadata of every call between members, checked by whoever is called.
//!
//! A member's number belongs to one data directory for ever. Whoever comes with the number of a member
//! and another directory has lost what that member promised (its votes, what it acknowledged), and is
//! refused until it is replaced.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use revfs_api::wire::peer::Caller;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::data_dir::Identity;

/// Version of revfs.peer.v1.
const PROTOCOL: u32 = 1;

const METADATA: &str = "revfs-peer-bin";

/// The data directories of the members, as the cluster's rows say, and of those that this one has met
/// since it was started; and who belongs to the cluster no more.
#[derive(Debug, Default)]
pub(crate) struct Met(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    instances: HashMap<u64, u128>,
    gone: HashSet<u64>,
    /// By a test: nothing is said to them, and nothing heard.
    #[cfg(test)]
    cut_off: HashSet<u64>,
}

impl Met {
    pub(crate) fn instance(&self, member: u64) -> Option<u128> {
        self.0.lock().instances.get(&member).copied()
    }

    /// Notes it, or says which other one is known.
    pub(crate) fn meet(&self, member: u64, instance: u128) -> Result<(), u128> {
        let known = *self.0.lock().instances.entry(member).or_insert(instance);
        if known == instance { Ok(()) } else { Err(known) }
    }

    /// Takes over what the cluster knows: it outweighs what was met.
    pub(crate) fn know(
        &self,
        instances: impl IntoIterator<Item = (u64, u128)>,
        gone: HashSet<u64>,
    ) {
        let mut known = self.0.lock();
        known.instances.extend(instances);
        known.gone = gone;
    }

    #[cfg(test)]
    pub(crate) fn cut_off(&self, members: HashSet<u64>) {
        self.0.lock().cut_off = members;
    }

    /// Refuses what goes to a member that a test has cut off, or comes from it.
    #[cfg(test)]
    fn check_reached(&self, member: u64) -> Result<(), Status> {
        match self.0.lock().cut_off.contains(&member) {
            true => Err(Status::unavailable("cut off")),
            false => Ok(()),
        }
    }

    pub(super) fn is_gone(&self, member: u64) -> bool {
        self.0.lock().gone.contains(&member)
    }
}

/// Says in each call who calls whom.
#[derive(Clone, Debug)]
pub(crate) struct Whom {
    pub(super) own: Identity,
    pub(super) to: u64,
    pub(super) met: Arc<Met>,
}

impl Interceptor for Whom {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        #[cfg(test)]
        self.met.check_reached(self.to)?;
        let known = self.met.instance(self.to);
        let caller = Caller {
            protocol: PROTOCOL,
            cluster: self.own.cluster,
            from: self.own.member,
            from_instance: bytes(self.own.instance),
            to: self.to,
            to_instance: known.map(bytes).unwrap_or_default(),
        };
        let value = BinaryMetadataValue::from_bytes(&caller.encode_to_vec());
        request.metadata_mut().insert_bin(METADATA, value);
        Ok(request)
    }
}

pub(super) fn bytes(instance: u128) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&instance.to_be_bytes())
}

pub(super) fn instance(bytes: &[u8]) -> Option<u128> {
    bytes.try_into().ok().map(u128::from_be_bytes)
}

fn caller(metadata: &MetadataMap) -> Option<Caller> {
    let value = metadata.get_bin(METADATA).and_then(|value| value.to_bytes().ok());
    value.and_then(|bytes| Caller::decode(bytes).ok())
}

/// Whether who calls was removed from this cluster.
pub(super) fn is_removed(metadata: &MetadataMap, own: &Identity, met: &Met) -> bool {
    caller(metadata).is_some_and(|by| by.cluster == own.cluster && met.is_gone(by.from))
}

/// Who calls, if the call is for this member; the refusal says what is wrong and what to do.
pub(super) fn check(metadata: &MetadataMap, own: &Identity, met: &Met) -> Result<u64, Status> {
    let caller = caller(metadata).ok_or_else(|| {
        Status::unauthenticated("only members are answered here; clients have their own address")
    })?;
    let refused = |reason: String| Err(Status::failed_precondition(reason));
    let Caller { protocol, cluster, from, from_instance, to, to_instance } = caller;
    #[cfg(test)]
    met.check_reached(from)?;
    if protocol != PROTOCOL {
        return refused(format!(
            "member {from:x} speaks version {protocol} of the protocol between members, this one {PROTOCOL}: \
             run releases beside each other that have one in common"
        ));
    }
    if cluster != own.cluster {
        return refused(format!(
            "member {from:x} is of cluster {cluster:016x}, this one of {:016x}: \
             check the peer URLs and initial-cluster-token",
            own.cluster
        ));
    }
    if met.is_gone(from) {
        return refused(format!(
            "member {from:x} was removed from the cluster: add it anew, with an empty data directory"
        ));
    }
    if to != own.member {
        return refused(format!(
            "member {from:x} calls member {to:x}, but this is {:x}: check the peer URLs of both \
             ('revfs member list'; 'revfs member update' corrects them)",
            own.member
        ));
    }
    if !to_instance.is_empty() && instance(&to_instance) != Some(own.instance) {
        return refused(format!(
            "member {from:x} knows this member {to:x} with another data directory than its {:032x}: it has \
             lost what it promised; replace the member ('revfs member replace {to:x} URL')",
            own.instance
        ));
    }
    let Some(from_instance) = instance(&from_instance) else {
        return refused(format!("member {from:x} does not tell its data directory"));
    };
    if let Err(known) = met.meet(from, from_instance) {
        return refused(format!(
            "member {from:x} was known with data directory {known:032x} and comes with {from_instance:032x}: \
             it has lost what it promised; replace the member ('revfs member replace {from:x} URL')"
        ));
    }
    Ok(from)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::service::Interceptor;
    use tonic::{Code, Request};

    use super::{Met, Whom, check, is_removed};
    use crate::data_dir::Identity;

    fn identity(member: u64) -> Identity {
        Identity { cluster: 7, member, instance: u128::from(member) << 80 }
    }

    fn call(own: Identity, to: u64, met: &Arc<Met>) -> Request<()> {
        let mut whom = Whom { own, to, met: Arc::clone(met) };
        whom.call(Request::new(())).unwrap()
    }

    fn refusal(call: &Request<()>, own: Identity, met: &Met) -> String {
        let status = check(call.metadata(), &own, met).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        status.message().to_owned()
    }

    #[test]
    fn a_member_is_known_by_what_it_says() {
        let (met, own) = (Met::default(), identity(2));
        let called = call(identity(1), 2, &Arc::default());
        assert_eq!(check(called.metadata(), &own, &met).unwrap(), 1);
        assert_eq!(met.instance(1), Some(1 << 80));
        assert_eq!(check(called.metadata(), &own, &met).unwrap(), 1);
    }

    #[test]
    fn strangers_and_clients_are_refused() {
        let (met, own) = (Met::default(), identity(2));
        let status = check(Request::new(()).metadata(), &own, &met).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        let other = Identity { cluster: 8, ..identity(1) };
        let refused = refusal(&call(other, 2, &Arc::default()), own, &met);
        assert!(refused.contains("0000000000000008"), "{refused}");
        let refused = refusal(&call(identity(1), 3, &Arc::default()), own, &met);
        assert!(refused.contains("calls member 3, but this is 2"), "{refused}");
        assert_eq!(met.instance(1), None, "who is refused is not remembered");
    }

    #[test]
    fn who_was_removed_is_refused_and_told() {
        let (met, own) = (Arc::new(Met::default()), identity(2));
        let called = call(identity(1), 2, &Arc::default());
        assert!(!is_removed(called.metadata(), &own, &met));
        met.know([], std::collections::HashSet::from([1]));
        assert!(is_removed(called.metadata(), &own, &met));
        assert!(refusal(&called, own, &met).contains("member 1 was removed"));
        let other = Identity { cluster: 8, ..identity(1) };
        let stranger = call(other, 2, &Arc::default());
        assert!(!is_removed(stranger.metadata(), &own, &met), "of another cluster");
    }

    #[test]
    fn a_member_with_another_data_directory_is_refused_on_both_sides() {
        let (met, own) = (Arc::new(Met::default()), identity(2));
        met.meet(1, 5).unwrap();
        let refused = refusal(&call(identity(1), 2, &Arc::default()), own, &met);
        assert!(refused.contains("replace the member"), "{refused}");

        met.meet(2, 6).unwrap();
        let refused = refusal(&call(identity(3), 2, &met), own, &Met::default());
        assert!(refused.contains("another data directory"), "{refused}");
    }
}
