-- What the registry knows. SQLite's twin of this file says the same in its own words; here names
-- and digests are compared byte by byte (COLLATE "C"), as SQLite does by itself.

CREATE TABLE repositories (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name TEXT COLLATE "C" NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK (kind IN ('hosted', 'cached'))
);
CREATE INDEX repositories_by_kind ON repositories (kind, name);

-- One row for each digest that a hosted repository holds, as blob or as manifest: what must be in
-- the blob store. loose = 1: a link went away, the sweep has to look whether any is left.
CREATE TABLE contents (
  digest TEXT COLLATE "C" PRIMARY KEY,
  size BIGINT NOT NULL,
  loose BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX contents_loose ON contents (digest) WHERE loose = 1;

-- Which repository holds which blob. lease_until_ms: when the sweep has to look at the link; NULL:
-- never (held by a manifest, or the repository is a cached one).
CREATE TABLE links (
  repository_id BIGINT NOT NULL REFERENCES repositories (id),
  digest TEXT COLLATE "C" NOT NULL,
  size BIGINT NOT NULL,
  lease_until_ms BIGINT,
  PRIMARY KEY (repository_id, digest)
);
CREATE INDEX links_by_digest ON links (digest, repository_id);
CREATE INDEX links_by_lease ON links (lease_until_ms) WHERE lease_until_ms IS NOT NULL;

CREATE TABLE manifests (
  repository_id BIGINT NOT NULL REFERENCES repositories (id),
  digest TEXT COLLATE "C" NOT NULL,
  media_type TEXT NOT NULL,
  size BIGINT NOT NULL,
  artifact_type TEXT COLLATE "C",
  subject TEXT COLLATE "C",
  annotations TEXT NOT NULL,
  pushed_at_ms BIGINT NOT NULL,
  PRIMARY KEY (repository_id, digest)
);
CREATE INDEX manifests_by_digest ON manifests (digest, repository_id);
CREATE INDEX manifests_by_subject ON manifests (repository_id, subject) WHERE subject IS NOT NULL;
CREATE INDEX manifests_by_age ON manifests (pushed_at_ms);

-- What a hosted manifest needs in its repository: blobs and child manifests.
CREATE TABLE manifest_references (
  repository_id BIGINT NOT NULL,
  manifest TEXT COLLATE "C" NOT NULL,
  digest TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (repository_id, manifest, digest),
  FOREIGN KEY (repository_id, manifest) REFERENCES manifests (repository_id, digest)
    ON DELETE CASCADE
);
CREATE INDEX manifest_references_by_digest ON manifest_references (digest, repository_id);

CREATE TABLE tags (
  repository_id BIGINT NOT NULL REFERENCES repositories (id),
  name TEXT COLLATE "C" NOT NULL,
  digest TEXT COLLATE "C" NOT NULL,
  updated_ms BIGINT NOT NULL,
  checked_ms BIGINT NOT NULL,
  etag TEXT,
  PRIMARY KEY (repository_id, name)
);
CREATE INDEX tags_by_digest ON tags (digest, repository_id);

CREATE TABLE pins (
  digest TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  created_ms BIGINT NOT NULL,
  PRIMARY KEY (digest, reason)
);

CREATE TABLE access_keys (
  id TEXT COLLATE "C" PRIMARY KEY,
  secret_hash TEXT NOT NULL,
  owner TEXT NOT NULL,
  scopes_json TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  expires_ms BIGINT
);
