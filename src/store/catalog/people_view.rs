//! What the metadata said, in the form of the interface contract.

use std::collections::BTreeMap;

use super::model::{
    Attached, ExtensionSeen, GroupSeen, LabelPeriod, MediaStream, Member, MemberGroup, Metadata,
    Name, Participant, Period, Reason, RenamedFrom, Session, SessionPeriod,
};
use super::people::{People, word};
use crate::base::time::Wall;
use crate::store::metadata::{Owner, Span, Spans, Succession};
use crate::wire::metadata::{Dialect, Id};

impl People {
    /// All Communication Sessions, in order of appearance.
    pub(super) fn sessions(&self) -> Vec<Session> {
        let mut members: BTreeMap<&Id, Vec<Member>> = BTreeMap::new();
        for row in self.model.memberships().iter() {
            members.entry(&row.session).or_default().extend(row.spans.iter().map(|span| Member {
                participant_id: self.participant_id(&row.participant),
                period: period(span),
                parameters: row.parameters.clone(),
            }));
        }
        let rows = self.model.sessions().iter();
        rows.map(|row| {
            let last = row.spans.last();
            let groups = row.groups.iter().map(|(group, span)| MemberGroup {
                group_id: group.to_string(),
                period: period(span),
            });
            let groups: Vec<MemberGroup> = groups.collect();
            let lists = row.sip_session_ids.iter();
            Session {
                session_id: row.id.to_string(),
                start: last.and_then(|span| span.from.stated.clone()),
                stop: last.and_then(|span| span.to.as_ref()?.stated.clone()),
                group: groups.last().map(|group| group.group_id.clone()),
                sip_session_ids: lists.last().map(|(ids, _)| ids.clone()).unwrap_or_default(),
                periods: periods(&row.spans),
                recorded: periods(&row.recorded),
                reasons: row
                    .reasons
                    .iter()
                    .map(|reason| Reason {
                        protocol: reason.protocol.clone(),
                        cause: reason.cause.clone(),
                        text: reason.text.clone(),
                    })
                    .collect(),
                members: members.remove(&row.id).unwrap_or_default(),
                lines: self
                    .model
                    .labels_of(&row.id)
                    .into_iter()
                    .map(|(label, span)| LabelPeriod { label, period: period(&span) })
                    .collect(),
                groups: if groups.len() > 1 { groups } else { Vec::new() },
                defined: row.defined,
            }
        })
        .collect()
    }

    /// All participants, in order of appearance.
    pub(super) fn participants(&self) -> Vec<Participant> {
        let rows = self.model.participants().iter();
        rows.map(|row| {
            let mut lists: Vec<RenamedFrom> = row
                .names
                .iter()
                .map(|(list, span)| RenamedFrom {
                    names: list
                        .iter()
                        .map(|name| Name { aor: name.aor.clone(), name: name.name.clone() })
                        .collect(),
                    period: period(span),
                })
                .collect();
            Participant {
                participant_id: row.id.to_string(),
                names: lists.pop().map(|latest| latest.names).unwrap_or_default(),
                former_names: lists,
                periods: periods(&row.spans),
                defined: row.defined,
            }
        })
        .collect()
    }

    /// The rest of what the documents said.
    pub(super) fn metadata(&self) -> Metadata {
        let (documents, unreadable) = self.model.documents();
        Metadata {
            documents,
            unreadable,
            dialects: self.model.dialects().iter().map(|one| dialect(*one).to_owned()).collect(),
            snapshot_wanted: self.model.snapshot_wanted().map(str::to_owned),
            groups: self
                .model
                .groups()
                .iter()
                .map(|row| GroupSeen {
                    group_id: row.id.to_string(),
                    periods: periods(&row.spans),
                    defined: row.defined,
                })
                .collect(),
            streams: self.media_streams(),
            extensions: self.extensions(),
        }
    }

    fn media_streams(&self) -> Vec<MediaStream> {
        let mut on: BTreeMap<&Id, Vec<Attached>> = BTreeMap::new();
        for row in self.model.contributions().iter() {
            on.entry(&row.stream).or_default().extend(row.spans.iter().map(|span| Attached {
                participant_id: self.participant_id(&row.participant),
                direction: word(row.direction).to_owned(),
                period: period(span),
            }));
        }
        let rows = self.model.streams().iter();
        rows.map(|row| MediaStream {
            stream_id: row.id.to_string(),
            periods: periods(&row.spans),
            labels: row
                .labels
                .iter()
                .map(|(label, span)| LabelPeriod { label: label.clone(), period: period(span) })
                .collect(),
            sessions: row
                .sessions
                .iter()
                .map(|(id, span)| SessionPeriod {
                    session_id: id.to_string(),
                    period: period(span),
                })
                .collect(),
            associations: on.remove(&row.id).unwrap_or_default(),
            defined: row.defined,
        })
        .collect()
    }

    fn extensions(&self) -> Vec<ExtensionSeen> {
        let mut seen = Vec::new();
        for row in self.model.extensions().iter() {
            let (of, ids) = owner(&row.owner);
            let versions: &Succession<Vec<String>> = &row.versions;
            seen.extend(versions.iter().map(|(xml, span)| ExtensionSeen {
                of: of.to_owned(),
                ids: ids.clone(),
                namespace: row.namespace.clone(),
                name: row.name.clone(),
                xml: xml.clone(),
                period: period(span),
            }));
        }
        seen
    }
}

pub(super) fn period(span: &Span) -> Period {
    let from = span.from.arrival;
    let stated: Option<Wall> =
        span.from.stated.as_deref().and_then(|text| text.trim().parse().ok());
    Period {
        from,
        stated_offset_ms: stated.map(|stated| stated.0.saturating_sub(from.0) / 1_000_000),
        to: span.to.as_ref().map(|to| to.arrival),
        stated_from: span.from.stated.clone(),
        stated_to: span.to.as_ref().and_then(|to| to.stated.clone()),
    }
}

fn periods(spans: &Spans) -> Vec<Period> {
    spans.iter().map(period).collect()
}

fn dialect(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Final => "RFC 7865",
        Dialect::DraftA => "draft A",
        Dialect::DraftB => "draft B",
        Dialect::DraftC => "draft C",
        Dialect::Unknown => "unknown",
    }
}

fn owner(owner: &Owner) -> (&'static str, Vec<String>) {
    let one = |id: &Id| vec![id.to_string()];
    match owner {
        Owner::Recording => ("recording", Vec::new()),
        Owner::Group(id) => ("group", one(id)),
        Owner::Session(id) => ("session", one(id)),
        Owner::Participant(id) => ("participant", one(id)),
        Owner::Stream(id) => ("stream", one(id)),
        Owner::SessionRecording(id) => ("sessionrecordingassoc", one(id)),
        Owner::ParticipantSession(who, cs) => {
            ("participantsessionassoc", vec![who.to_string(), cs.to_string()])
        }
        Owner::ParticipantStream(id) => ("participantstreamassoc", one(id)),
    }
}
