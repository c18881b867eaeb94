-- What the registry knows. PostgreSQL's twin of this file says the same in its own words.

CREATE TABLE repositories (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK (kind IN ('hosted', 'cached'))
) STRICT;
CREATE INDEX repositories_by_kind ON repositories (kind, name);

-- One row for each digest that a hosted repository holds, as blob or as manifest: what must be in
-- the blob store. loose = 1: a link went away, the sweep has to look whether any is left.
CREATE TABLE contents (
  digest TEXT PRIMARY KEY,
  size INTEGER NOT NULL,
  loose INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX contents_loose ON contents (digest) WHERE loose = 1;

-- Which repository holds which blob. lease_until_ms: when the sweep has to look at the link; NULL:
-- never (held by a manifest, or the repository is a cached one).
CREATE TABLE links (
  repository_id INTEGER NOT NULL REFERENCES repositories (id),
  digest TEXT NOT NULL,
  size INTEGER NOT NULL,
  lease_until_ms INTEGER,
  PRIMARY KEY (repository_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX links_by_digest ON links (digest, repository_id);
CREATE INDEX links_by_lease ON links (lease_until_ms) WHERE lease_until_ms IS NOT NULL;

CREATE TABLE manifests (
  repository_id INTEGER NOT NULL REFERENCES repositories (id),
  digest TEXT NOT NULL,
  media_type TEXT NOT NULL,
  size INTEGER NOT NULL,
  artifact_type TEXT,
  subject TEXT,
  annotations TEXT NOT NULL,
  pushed_at_ms INTEGER NOT NULL,
  PRIMARY KEY (repository_id, digest)
) STRICT;
CREATE INDEX manifests_by_digest ON manifests (digest, repository_id);
CREATE INDEX manifests_by_subject ON manifests (repository_id, subject) WHERE subject IS NOT NULL;
CREATE INDEX manifests_by_age ON manifests (pushed_at_ms);

-- What a hosted manifest needs in its repository: blobs and child manifests.
CREATE TABLE manifest_references (
  repository_id INTEGER NOT NULL,
  manifest TEXT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (repository_id, manifest, digest),
  FOREIGN KEY (repository_id, manifest) REFERENCES manifests (repository_id, digest)
    ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_references_by_digest ON manifest_references (digest, repository_id);

CREATE TABLE tags (
  repository_id INTEGER NOT NULL REFERENCES repositories (id),
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  updated_ms INTEGER NOT NULL,
  checked_ms INTEGER NOT NULL,
  etag TEXT,
  PRIMARY KEY (repository_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (digest, repository_id);

CREATE TABLE pins (
  digest TEXT NOT NULL,
  reason TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY (digest, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE access_keys (
  id TEXT PRIMARY KEY,
  secret_hash TEXT NOT NULL,
  owner TEXT NOT NULL,
  scopes_json TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  expires_ms INTEGER
) STRICT, WITHOUT ROWID;
