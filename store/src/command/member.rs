//! Changes of the members' rows, in an encoded command.

use super::{Decoder, EncodeError, Encoder, tag};
use crate::codec::DecodeError;
use crate::member::{MemberChange, MemberRole};

impl Encoder {
    pub(super) fn member(&mut self, change: &MemberChange) -> Result<(), EncodeError> {
        self.0.u8(tag::BODY_MEMBER);
        match change {
            MemberChange::Add { id, role, replaces, peer_urls } => {
                self.id(tag::MEMBER_ADD, *id);
                self.0.u8(role.number());
                self.0.u64(replaces.unwrap_or(0));
                self.texts(peer_urls)
            }
            MemberChange::Adopt { id, role, peer_urls } => {
                self.id(tag::MEMBER_ADOPT, *id);
                self.0.u8(role.number());
                self.texts(peer_urls)
            }
            MemberChange::Remove { id } => {
                self.id(tag::MEMBER_REMOVE, *id);
                Ok(())
            }
            MemberChange::RemoveByForce { id } => {
                self.id(tag::MEMBER_REMOVE_BY_FORCE, *id);
                Ok(())
            }
            MemberChange::SetUrls { id, peer_urls } => {
                self.id(tag::MEMBER_SET_URLS, *id);
                self.texts(peer_urls)
            }
            MemberChange::SetRole { id, role } => {
                self.id(tag::MEMBER_SET_ROLE, *id);
                self.0.u8(role.number());
                Ok(())
            }
            MemberChange::Identify { id, instance, version } => {
                self.id(tag::MEMBER_IDENTIFY, *id);
                self.instance(*instance, *version);
                Ok(())
            }
            MemberChange::Publish { id, instance, version, name, peer_urls, client_urls } => {
                self.id(tag::MEMBER_PUBLISH, *id);
                self.instance(*instance, *version);
                self.bytes(name.as_bytes())?;
                self.texts(peer_urls)?;
                self.texts(client_urls)
            }
            MemberChange::RaiseVersion { version } => {
                self.0.u8(tag::MEMBER_RAISE_VERSION);
                self.0.u32(*version);
                Ok(())
            }
        }
    }

    fn id(&mut self, tag: u8, id: u64) {
        self.0.u8(tag);
        self.0.u64(id);
    }

    fn instance(&mut self, instance: u128, version: u32) {
        self.0.raw(&instance.to_be_bytes());
        self.0.u32(version);
    }

    fn texts(&mut self, texts: &[String]) -> Result<(), EncodeError> {
        self.count(texts.len())?;
        texts.iter().try_for_each(|text| self.bytes(text.as_bytes()))
    }
}

impl Decoder<'_> {
    pub(super) fn member(&mut self) -> Result<MemberChange, DecodeError> {
        let kind = self.reader.u8("change of members")?;
        if kind == tag::MEMBER_RAISE_VERSION {
            return Ok(MemberChange::RaiseVersion { version: self.reader.u32("version")? });
        }
        let id = self.reader.u64("member")?;
        Ok(match kind {
            tag::MEMBER_ADD => {
                let role = self.role()?;
                let replaces = Some(self.reader.u64("replaces")?).filter(|old| *old != 0);
                MemberChange::Add { id, role, replaces, peer_urls: self.texts("peer URL")? }
            }
            tag::MEMBER_ADOPT => {
                let role = self.role()?;
                MemberChange::Adopt { id, role, peer_urls: self.texts("peer URL")? }
            }
            tag::MEMBER_REMOVE => MemberChange::Remove { id },
            tag::MEMBER_REMOVE_BY_FORCE => MemberChange::RemoveByForce { id },
            tag::MEMBER_SET_URLS => {
                MemberChange::SetUrls { id, peer_urls: self.texts("peer URL")? }
            }
            tag::MEMBER_SET_ROLE => MemberChange::SetRole { id, role: self.role()? },
            tag::MEMBER_IDENTIFY => {
                let (instance, version) = self.instance()?;
                MemberChange::Identify { id, instance, version }
            }
            tag::MEMBER_PUBLISH => {
                let (instance, version) = self.instance()?;
                let name = self.reader.text("name")?;
                let peer_urls = self.texts("peer URL")?;
                let client_urls = self.texts("client URL")?;
                MemberChange::Publish { id, instance, version, name, peer_urls, client_urls }
            }
            other => return Err(self.unknown("change of members", other)),
        })
    }

    fn role(&mut self) -> Result<MemberRole, DecodeError> {
        let number = self.reader.u8("role")?;
        MemberRole::of_number(number).ok_or_else(|| self.unknown("role", number))
    }

    fn instance(&mut self) -> Result<(u128, u32), DecodeError> {
        let (high, low) = (self.reader.u64("instance")?, self.reader.u64("instance")?);
        Ok(((u128::from(high) << 64) | u128::from(low), self.reader.u32("version")?))
    }

    fn texts(&mut self, field: &'static str) -> Result<Vec<String>, DecodeError> {
        (0..self.reader.count(field)?).map(|_| self.reader.text(field)).collect()
    }
}
