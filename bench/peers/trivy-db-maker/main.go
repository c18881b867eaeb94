// trivy-db-maker writes Trivy's database (bbolt, schema 2) from OSV records, so that Trivy can be
// measured with the same data as everybody else: trivy-db-maker FEEDS CACHE, where FEEDS holds
// ECOSYSTEM/all.zip as osv.dev publishes it and CACHE is what --cache-dir names.
//
// Every advisory is stored under its OSV id, so that findings can be compared one by one.
package main

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/ecosystem"
	"github.com/aquasecurity/trivy-db/pkg/metadata"
	"github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/vulnerability"
	javadb "github.com/aquasecurity/trivy-java-db/pkg/db"
	bolt "go.etcd.io/bbolt"
	_ "modernc.org/sqlite" // the driver of the index below
)

// What is used of an OSV record.
type record struct {
	ID        string     `json:"id"`
	Summary   string     `json:"summary"`
	Details   string     `json:"details"`
	Withdrawn *time.Time `json:"withdrawn"`
	Published *time.Time `json:"published"`
	Modified  *time.Time `json:"modified"`
	Affected  []struct {
		Package struct {
			Ecosystem string `json:"ecosystem"`
			Name      string `json:"name"`
		} `json:"package"`
		Ranges []struct {
			Type   string              `json:"type"`
			Events []map[string]string `json:"events"`
		} `json:"ranges"`
		Versions          []string       `json:"versions"`
		EcosystemSpecific map[string]any `json:"ecosystem_specific"`
	} `json:"affected"`
	References []struct {
		URL string `json:"url"`
	} `json:"references"`
}

var languages = map[string]ecosystem.Type{
	"Go": ecosystem.Go, "crates.io": ecosystem.Cargo, "PyPI": ecosystem.Pip, "npm": ecosystem.Npm,
	"Maven": ecosystem.Maven, "RubyGems": ecosystem.RubyGems, "NuGet": ecosystem.NuGet,
	"Packagist": ecosystem.Composer,
}

var systems = map[string]ecosystem.Type{
	"Debian": ecosystem.Debian, "AlmaLinux": ecosystem.AlmaLinux, "Alpine": ecosystem.Alpine,
}

const source = "OSV"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: trivy-db-maker FEEDS CACHE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "trivy-db-maker:", err)
		os.Exit(1)
	}
}

func run(feeds, cache string) error {
	folder := filepath.Join(cache, "db")
	if err := db.Init(folder); err != nil {
		return err
	}
	defer db.Close()
	archives, err := filepath.Glob(filepath.Join(feeds, "*", "all.zip"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := load(archive); err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
	}
	if err := java(filepath.Join(cache, "java-db")); err != nil {
		return err
	}
	now := time.Now().UTC()
	return metadata.NewClient(folder).Update(metadata.Metadata{
		Version: db.SchemaVersion, NextUpdate: now.AddDate(10, 0, 0), UpdatedAt: now, DownloadedAt: now,
	})
}

// java writes an empty index of Maven artifacts by checksum: without one Trivy refuses images with
// jars. What a jar says about itself is read without it.
func java(folder string) error {
	index, err := javadb.New(folder)
	if err != nil {
		return err
	}
	if err := index.Init(); err != nil {
		return err
	}
	if err := index.Close(); err != nil {
		return err
	}
	now := time.Now().UTC()
	about := javadb.NewMetadata(folder)
	return about.Update(javadb.Metadata{
		Version: javadb.SchemaVersion, NextUpdate: now.AddDate(10, 0, 0), UpdatedAt: now, DownloadedAt: now,
	})
}

func load(archive string) error {
	files, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer files.Close()
	// One transaction for all: a commit for each record would take hours.
	return db.Config{}.BatchUpdate(func(tx *bolt.Tx) error {
		for _, file := range files.File {
			if !strings.HasSuffix(file.Name, ".json") {
				continue
			}
			content, err := file.Open()
			if err != nil {
				return err
			}
			var one record
			err = json.NewDecoder(content).Decode(&one)
			content.Close()
			if err != nil {
				return fmt.Errorf("%s: %w", file.Name, err)
			}
			if one.Withdrawn != nil {
				continue
			}
			if err := put(tx, &one); err != nil {
				return fmt.Errorf("%s: %w", file.Name, err)
			}
		}
		return nil
	})
}

func put(tx *bolt.Tx, one *record) error {
	config := db.Config{}
	type place struct{ bucket, name string }
	found := map[place]*types.Advisory{}
	for _, affected := range one.Affected {
		family, release, _ := strings.Cut(affected.Package.Ecosystem, ":")
		name := affected.Package.Name
		var bucket string
		if kind, ok := languages[family]; ok {
			bucket = string(kind) + "::" + source
			name = vulnerability.NormalizePkgName(kind, name)
		} else if kind, ok := systems[family]; ok {
			bucket = string(kind) + " " + strings.TrimPrefix(release, "v")
			if module, ok := affected.EcosystemSpecific["rpm_modularity"].(string); ok && module != "" {
				name = module + "::" + name
			}
		} else {
			continue
		}
		at := place{bucket, name}
		advisory := found[at]
		if advisory == nil {
			advisory = &types.Advisory{}
			found[at] = advisory
		}
		for _, one := range affected.Ranges {
			if one.Type == "GIT" {
				continue
			}
			ranges, fixed := intervals(one.Events)
			if _, ok := systems[family]; ok {
				// One fixed version is all that these buckets can say.
				if len(fixed) > 0 {
					advisory.FixedVersion = fixed[len(fixed)-1]
				}
				continue
			}
			advisory.VulnerableVersions = append(advisory.VulnerableVersions, ranges...)
			advisory.PatchedVersions = append(advisory.PatchedVersions, fixed...)
		}
		if _, ok := languages[family]; ok && len(affected.Ranges) == 0 {
			for _, version := range affected.Versions {
				advisory.VulnerableVersions = append(advisory.VulnerableVersions, "="+version)
			}
		}
	}
	for at, advisory := range found {
		if err := config.PutDataSource(tx, at.bucket, types.DataSource{ID: "osv", Name: source}); err != nil {
			return err
		}
		if err := config.PutAdvisory(tx, []string{at.bucket, at.name}, one.ID, advisory); err != nil {
			return err
		}
	}
	if len(found) == 0 {
		return nil
	}
	var links []string
	for _, reference := range one.References {
		links = append(links, reference.URL)
	}
	return config.PutVulnerability(tx, one.ID, types.Vulnerability{
		Title: one.Summary, Description: one.Details, References: links,
		PublishedDate: one.Published, LastModifiedDate: one.Modified,
	})
}

// intervals gives the vulnerable ranges as Trivy writes them, and the fixed versions.
func intervals(events []map[string]string) (ranges, fixed []string) {
	from := ""
	open := false
	for _, event := range events {
		if version, ok := event["introduced"]; ok {
			from, open = ">="+version, true
		} else if version, ok := event["fixed"]; ok && open {
			ranges, fixed, open = append(ranges, from+", <"+version), append(fixed, version), false
		} else if version, ok := event["last_affected"]; ok && open {
			ranges, open = append(ranges, from+", <="+version), false
		}
	}
	if open {
		ranges = append(ranges, from)
	}
	return ranges, fixed
}
