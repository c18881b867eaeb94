//! What this process knows of the catalogue without asking, while it is the only one to write it.
//!
//! Readers put in what they were told, under a ticket taken before they asked; writers only take
//! out, after their write. So no order of events leaves an answer that the catalogue would not
//! give. A process that shares its catalogue keeps nothing here.

use kuboard_oci::{Digest, RepositoryName, Tag};

use crate::manifest_cache::{Bounded, Ticket};

/// Most tags, and most links of blobs, that are kept.
const ENTRIES: u64 = 65_536;

/// Tags and links seen lately.
pub(super) struct Known {
    tags: Bounded<(RepositoryName, Tag), Digest>,
    links: Bounded<(RepositoryName, Digest), ()>,
}

impl Known {
    /// `exclusive` = nobody else writes the catalogue.
    pub(super) fn new(exclusive: bool) -> Self {
        let entries = if exclusive { ENTRIES } else { 0 };
        Self { tags: Bounded::new(entries), links: Bounded::new(entries) }
    }

    pub(super) fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<Digest> {
        self.tags.get_with(&(repository.clone(), tag.clone()), |digest| Some(*digest))
    }

    pub(super) fn tag_ticket(&self) -> Ticket {
        self.tags.ticket()
    }

    pub(super) fn note_tag(
        &self,
        ticket: Ticket,
        repository: &RepositoryName,
        tag: &Tag,
        digest: Digest,
    ) {
        self.tags.update(ticket, (repository.clone(), tag.clone()), |_| 1, |_| digest);
    }

    pub(super) fn forget_tag(&self, repository: &RepositoryName, tag: &Tag) {
        self.tags.remove(&(repository.clone(), tag.clone()));
    }

    /// Forgets all tags of a manifest, which go with it.
    pub(super) fn forget_tags_of(&self, digest: &Digest) {
        self.tags.retain(|known| known != digest);
    }

    pub(super) fn has_link(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.links.get_with(&(repository.clone(), *digest), |()| Some(())).is_some()
    }

    pub(super) fn link_ticket(&self) -> Ticket {
        self.links.ticket()
    }

    pub(super) fn note_link(&self, ticket: Ticket, repository: &RepositoryName, digest: &Digest) {
        self.links.update(ticket, (repository.clone(), *digest), |()| 1, |_| ());
    }

    pub(super) fn forget_link(&self, repository: &RepositoryName, digest: &Digest) {
        self.links.remove(&(repository.clone(), *digest));
    }

    pub(super) fn forget_links(&self) {
        self.links.clear();
    }
}
