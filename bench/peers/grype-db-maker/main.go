// grype-db-maker writes Grype's database (sqlite, schema 6) from OSV records, so that Grype can be
// measured with the same data as everybody else: grype-db-maker FEEDS CACHE, where FEEDS holds
// ECOSYSTEM/all.zip as osv.dev publishes it and CACHE is what GRYPE_DB_CACHE_DIR names.
//
// Every advisory is stored under its OSV id, so that findings can be compared one by one. Grype
// looks for AlmaLinux's packages among those of RHEL, which is where they are put.
package main

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	v6 "github.com/anchore/grype/grype/db/v6"
	"github.com/spf13/afero"
)

// What is used of an OSV record.
type record struct {
	ID        string     `json:"id"`
	Details   string     `json:"details"`
	Aliases   []string   `json:"aliases"`
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

// Grype's names for a kind of package, the order of its versions, its system's name and os-release.
type kind struct{ ecosystem, versions, system, release string }

var kinds = map[string]kind{
	"Go": {"go-module", "go", "", ""}, "crates.io": {"rust-crate", "semver", "", ""},
	"PyPI": {"python", "python", "", ""}, "npm": {"npm", "semver", "", ""},
	"Maven": {"java-archive", "maven", "", ""}, "RubyGems": {"gem", "gem", "", ""},
	"Debian": {"deb", "dpkg", "debian", "debian"}, "AlmaLinux": {"rpm", "rpm", "redhat", "rhel"},
	"Alpine": {"apk", "apk", "alpine", "alpine"},
}

var separators = regexp.MustCompile(`[-_.]+`)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: grype-db-maker FEEDS CACHE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "grype-db-maker:", err)
		os.Exit(1)
	}
}

func run(feeds, cache string) error {
	folder := filepath.Join(cache, fmt.Sprint(v6.ModelVersion))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	// A small page cache: the default asks for 1 GiB.
	store, err := v6.NewWriter(v6.Config{DBDirPath: folder, CacheSizeKiB: 64 << 10})
	if err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(feeds, "*", "all.zip"))
	if err != nil {
		return err
	}
	// One for all: its name is the key of a table.
	now := time.Now().UTC()
	provider := &v6.Provider{ID: "osv", Version: "1", Processor: "grype-db-maker", DateCaptured: &now}
	for _, archive := range archives {
		if err := load(store, provider, archive); err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
	}
	if err := store.SetDBMetadata(); err != nil {
		return err
	}
	if err := store.Close(); err != nil {
		return err
	}
	// Indexes come with the first opening for writing, as after a download.
	if err := v6.Hydrater()(folder); err != nil {
		return err
	}
	_, err = v6.WriteImportMetadata(afero.NewOsFs(), folder, "grype-db-maker")
	return err
}

func load(store v6.ReadWriter, provider *v6.Provider, archive string) error {
	files, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer files.Close()
	waiting := batch{store: store}
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
		if one.Withdrawn == nil {
			if err := waiting.add(handles(provider, &one)); err != nil {
				return fmt.Errorf("%s: %w", file.Name, err)
			}
		}
	}
	return waiting.write()
}

// Each call of the store is a transaction: many records share one.
type batch struct {
	store           v6.ReadWriter
	vulnerabilities []*v6.VulnerabilityHandle
	packages        []*v6.AffectedPackageHandle
}

func (b *batch) add(vulnerability *v6.VulnerabilityHandle, packages []*v6.AffectedPackageHandle) error {
	if len(packages) == 0 {
		return nil
	}
	b.vulnerabilities = append(b.vulnerabilities, vulnerability)
	b.packages = append(b.packages, packages...)
	if len(b.packages) < 2000 {
		return nil
	}
	return b.write()
}

func (b *batch) write() error {
	if len(b.packages) == 0 {
		return nil
	}
	if err := b.store.AddVulnerabilities(b.vulnerabilities...); err != nil {
		return err
	}
	for _, handle := range b.packages {
		handle.VulnerabilityID = handle.Vulnerability.ID
	}
	err := b.store.AddAffectedPackages(b.packages...)
	b.vulnerabilities, b.packages = nil, nil
	return err
}

func handles(provider *v6.Provider, one *record) (*v6.VulnerabilityHandle, []*v6.AffectedPackageHandle) {
	var packages []*v6.AffectedPackageHandle
	for _, affected := range one.Affected {
		family, release, _ := strings.Cut(affected.Package.Ecosystem, ":")
		kind, ok := kinds[family]
		if !ok {
			continue
		}
		blob := v6.PackageBlob{}
		for _, one := range affected.Ranges {
			if one.Type != "GIT" {
				blob.Ranges = append(blob.Ranges, intervals(one.Events, kind.versions)...)
			}
		}
		if len(affected.Ranges) == 0 {
			for _, version := range affected.Versions {
				blob.Ranges = append(blob.Ranges, v6.Range{Version: v6.Version{Type: kind.versions, Constraint: "= " + version}})
			}
		}
		if module, ok := affected.EcosystemSpecific["rpm_modularity"].(string); ok && module != "" {
			blob.Qualifiers = &v6.PackageQualifiers{RpmModularity: &module}
		}
		name := affected.Package.Name
		if family == "PyPI" {
			name = separators.ReplaceAllString(strings.ToLower(name), "-")
		}
		handle := &v6.AffectedPackageHandle{
			Package:   &v6.Package{Ecosystem: kind.ecosystem, Name: name},
			BlobValue: &blob,
		}
		if kind.system != "" {
			major, minor, _ := strings.Cut(strings.TrimPrefix(release, "v"), ".")
			handle.OperatingSystem = &v6.OperatingSystem{
				Name: kind.system, ReleaseID: kind.release, MajorVersion: major, MinorVersion: minor,
			}
		}
		packages = append(packages, handle)
	}
	var links []v6.Reference
	for _, reference := range one.References {
		links = append(links, v6.Reference{URL: reference.URL})
	}
	vulnerability := &v6.VulnerabilityHandle{
		Name: one.ID, Status: v6.VulnerabilityActive, ProviderID: provider.ID, Provider: provider,
		PublishedDate: one.Published, ModifiedDate: one.Modified,
		BlobValue: &v6.VulnerabilityBlob{ID: one.ID, Description: one.Details, Aliases: one.Aliases, References: links},
	}
	for _, handle := range packages {
		handle.Vulnerability = vulnerability
	}
	return vulnerability, packages
}

func intervals(events []map[string]string, versions string) (ranges []v6.Range) {
	from := ""
	open := false
	add := func(constraint string, fix *v6.Fix) {
		constraint = strings.Trim(constraint, ", ")
		ranges = append(ranges, v6.Range{Version: v6.Version{Type: versions, Constraint: constraint}, Fix: fix})
		open = false
	}
	for _, event := range events {
		if version, ok := event["introduced"]; ok {
			from, open = "", true
			if version != "0" {
				from = ">=" + version
			}
		} else if version, ok := event["fixed"]; ok && open {
			add(from+",<"+version, &v6.Fix{Version: version, State: v6.FixedStatus})
		} else if version, ok := event["last_affected"]; ok && open {
			add(from+",<="+version, nil)
		}
	}
	if open {
		add(from, nil)
	}
	return ranges
}
