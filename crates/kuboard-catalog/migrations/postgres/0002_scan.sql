-- The queue of jobs, and what scans found out. SQLite's twin of this file says the same in its own
-- words.

-- state: waiting, running, done, failed (set aside with its reason). again = 1: asked for once more
-- while it ran, so it goes back to waiting when it is done.
CREATE TABLE jobs (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  payload TEXT NOT NULL,
  priority BIGINT NOT NULL,
  state TEXT COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
  again BIGINT NOT NULL DEFAULT 0,
  attempts BIGINT NOT NULL DEFAULT 0,
  max_attempts BIGINT NOT NULL,
  created_ms BIGINT NOT NULL,
  run_after_ms BIGINT NOT NULL,
  worker TEXT NOT NULL DEFAULT '',
  lease_until_ms BIGINT NOT NULL DEFAULT 0,
  finished_ms BIGINT NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX jobs_open ON jobs (kind, subject) WHERE state IN ('waiting', 'running');
CREATE INDEX jobs_waiting ON jobs (priority DESC, run_after_ms, id) WHERE state = 'waiting';
CREATE INDEX jobs_running ON jobs (lease_until_ms) WHERE state = 'running';
CREATE INDEX jobs_finished ON jobs (finished_ms) WHERE state IN ('done', 'failed');

-- What one layer contains, in the form that the indexer of that version writes.
CREATE TABLE layer_inventories (
  layer TEXT COLLATE "C" NOT NULL,
  indexer TEXT COLLATE "C" NOT NULL,
  body BYTEA NOT NULL,
  created_ms BIGINT NOT NULL,
  PRIMARY KEY (layer, indexer)
);

-- What one image contains, and what is known to be wrong with it.
CREATE TABLE image_inventories (
  image TEXT COLLATE "C" PRIMARY KEY,
  indexer TEXT COLLATE "C" NOT NULL,
  body BYTEA NOT NULL,
  indexed_ms BIGINT NOT NULL
);

CREATE TABLE image_reports (
  image TEXT COLLATE "C" PRIMARY KEY,
  body BYTEA NOT NULL,
  summary TEXT NOT NULL,
  generation BIGINT NOT NULL,
  reported_ms BIGINT NOT NULL
);
CREATE INDEX image_reports_by_generation ON image_reports (generation);

-- The inverted index: which images hold a package of that name. Keys are namespace, a space, name.
CREATE TABLE image_packages (
  key TEXT COLLATE "C" NOT NULL,
  image TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (key, image)
);
CREATE INDEX image_packages_by_image ON image_packages (image);

-- Under which names an image was seen.
CREATE TABLE image_names (
  registry TEXT COLLATE "C" NOT NULL,
  repository TEXT COLLATE "C" NOT NULL,
  tag TEXT COLLATE "C" NOT NULL,
  image TEXT COLLATE "C" NOT NULL,
  seen_ms BIGINT NOT NULL,
  PRIMARY KEY (registry, repository, tag, image)
);
CREATE INDEX image_names_by_image ON image_names (image);
CREATE INDEX image_names_by_age ON image_names (seen_ms);

-- The life of a finding under a name: subject is registry/repository:tag.
CREATE TABLE findings (
  subject TEXT COLLATE "C" NOT NULL,
  key TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  body TEXT NOT NULL,
  first_seen_ms BIGINT NOT NULL,
  changed_ms BIGINT NOT NULL,
  PRIMARY KEY (subject, key)
);
CREATE INDEX findings_by_state ON findings (state, changed_ms);

-- Events for others, and to whom each still has to go.
CREATE TABLE events (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key TEXT COLLATE "C" NOT NULL UNIQUE,
  kind TEXT COLLATE "C" NOT NULL,
  body TEXT NOT NULL,
  created_ms BIGINT NOT NULL
);
CREATE TABLE deliveries (
  event_id BIGINT NOT NULL REFERENCES events (id) ON DELETE CASCADE,
  receiver TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'done', 'dead')),
  attempts BIGINT NOT NULL DEFAULT 0,
  next_ms BIGINT NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (event_id, receiver)
);
CREATE INDEX deliveries_waiting ON deliveries (next_ms) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON deliveries (receiver, event_id) WHERE state = 'dead';

-- Clair's notifications: pages of items under one id.
CREATE TABLE notifications (
  id TEXT COLLATE "C" PRIMARY KEY,
  created_ms BIGINT NOT NULL
);
CREATE TABLE notification_items (
  notification TEXT COLLATE "C" NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
  item TEXT COLLATE "C" NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (notification, item)
);

-- Small facts of the engine: when a schedule ran last, up to which generation was re-matched.
CREATE TABLE marks (
  name TEXT COLLATE "C" PRIMARY KEY,
  value TEXT NOT NULL
);
