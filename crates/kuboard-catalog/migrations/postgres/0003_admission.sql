-- What admission control reads and writes. SQLite's twin of this file says the same in its own
-- words.

-- first_ms: when the image was first reported on with something to say; 0 before that.
-- change: the number of the report's last change, for those who follow reports.
ALTER TABLE image_reports ADD COLUMN first_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE image_reports ADD COLUMN change BIGINT NOT NULL DEFAULT 0;
UPDATE image_reports SET first_ms = reported_ms, change = numbered.change
FROM (SELECT image, ROW_NUMBER() OVER (ORDER BY image) AS change FROM image_reports) AS numbered
WHERE numbered.image = image_reports.image;
CREATE UNIQUE INDEX image_reports_by_change ON image_reports (change);

-- Numbers that are given out in the order in which transactions end: whoever takes one holds its
-- row until then.
CREATE TABLE counters (
  name TEXT COLLATE "C" PRIMARY KEY,
  value BIGINT NOT NULL
);
INSERT INTO counters (name, value) SELECT 'image reports', COUNT(*) FROM image_reports;

-- What admission decided, and why.
CREATE TABLE decisions (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at_ms BIGINT NOT NULL,
  uid TEXT NOT NULL,
  operation TEXT NOT NULL,
  namespace TEXT COLLATE "C" NOT NULL,
  pod TEXT NOT NULL,
  owner TEXT NOT NULL,
  username TEXT NOT NULL,
  outcome TEXT COLLATE "C" NOT NULL,
  policy TEXT NOT NULL,
  image TEXT NOT NULL,
  digest TEXT NOT NULL,
  detail TEXT NOT NULL
);
CREATE INDEX decisions_by_age ON decisions (at_ms);
CREATE INDEX decisions_by_namespace ON decisions (namespace, id);
CREATE INDEX decisions_by_outcome ON decisions (outcome, id);
