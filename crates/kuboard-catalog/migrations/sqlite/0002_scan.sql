-- The queue of jobs, and what scans found out. PostgreSQL's twin of this file says the same in its
-- own words.

-- state: waiting, running, done, failed (set aside with its reason). again = 1: asked for once more
-- while it ran, so it goes back to waiting when it is done.
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  payload TEXT NOT NULL,
  priority INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
  again INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  max_attempts INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  run_after_ms INTEGER NOT NULL,
  worker TEXT NOT NULL DEFAULT '',
  lease_until_ms INTEGER NOT NULL DEFAULT 0,
  finished_ms INTEGER NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX jobs_open ON jobs (kind, subject) WHERE state IN ('waiting', 'running');
CREATE INDEX jobs_waiting ON jobs (priority DESC, run_after_ms, id) WHERE state = 'waiting';
CREATE INDEX jobs_running ON jobs (lease_until_ms) WHERE state = 'running';
CREATE INDEX jobs_finished ON jobs (finished_ms) WHERE state IN ('done', 'failed');

-- What one layer contains, in the form that the indexer of that version writes.
CREATE TABLE layer_inventories (
  layer TEXT NOT NULL,
  indexer TEXT NOT NULL,
  body BLOB NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY (layer, indexer)
) STRICT;

-- What one image contains, and what is known to be wrong with it.
CREATE TABLE image_inventories (
  image TEXT PRIMARY KEY,
  indexer TEXT NOT NULL,
  body BLOB NOT NULL,
  indexed_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE image_reports (
  image TEXT PRIMARY KEY,
  body BLOB NOT NULL,
  summary TEXT NOT NULL,
  generation INTEGER NOT NULL,
  reported_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX image_reports_by_generation ON image_reports (generation);

-- The inverted index: which images hold a package of that name. Keys are namespace, a space, name.
CREATE TABLE image_packages (
  key TEXT NOT NULL,
  image TEXT NOT NULL,
  PRIMARY KEY (key, image)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_packages_by_image ON image_packages (image);

-- Under which names an image was seen.
CREATE TABLE image_names (
  registry TEXT NOT NULL,
  repository TEXT NOT NULL,
  tag TEXT NOT NULL,
  image TEXT NOT NULL,
  seen_ms INTEGER NOT NULL,
  PRIMARY KEY (registry, repository, tag, image)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_names_by_image ON image_names (image);
CREATE INDEX image_names_by_age ON image_names (seen_ms);

-- The life of a finding under a name: subject is registry/repository:tag.
CREATE TABLE findings (
  subject TEXT NOT NULL,
  key TEXT NOT NULL,
  state TEXT NOT NULL,
  body TEXT NOT NULL,
  first_seen_ms INTEGER NOT NULL,
  changed_ms INTEGER NOT NULL,
  PRIMARY KEY (subject, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX findings_by_state ON findings (state, changed_ms);

-- Events for others, and to whom each still has to go.
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  body TEXT NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE deliveries (
  event_id INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
  receiver TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'dead')),
  attempts INTEGER NOT NULL DEFAULT 0,
  next_ms INTEGER NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (event_id, receiver)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_waiting ON deliveries (next_ms) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON deliveries (receiver, event_id) WHERE state = 'dead';

-- Clair's notifications: pages of items under one id.
CREATE TABLE notifications (
  id TEXT PRIMARY KEY,
  created_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE notification_items (
  notification TEXT NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
  item TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (notification, item)
) STRICT, WITHOUT ROWID;

-- Small facts of the engine: when a schedule ran last, up to which generation was re-matched.
CREATE TABLE marks (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;
