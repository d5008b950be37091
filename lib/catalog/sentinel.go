package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"walg/lib/fault"
	"walg/lib/wal"
)

// Number is an unsigned number that is written as null when it is 0 and so not
// known: an LSN in bytes, or a system identifier. It is exact above 2^53.
type Number uint64

// MarshalJSON writes the number, or null.
func (n Number) MarshalJSON() ([]byte, error) {
	if n == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(uint64(n))
}

// LSN is the number in PostgreSQL's form, such as 0/3000028.
func (n Number) LSN() string { return wal.LSN(n).String() }

// dateFormat is a constant that WAL-G writes beside times. Nothing reads it.
const dateFormat = "%Y-%m-%dT%H:%M:%S.%fZ"

// sentinelVersion is the form of sentinel that WAL-G has written since 2021.
const sentinelVersion = 2

// micro is t as WAL-G records it: UTC, rounded up to a microsecond.
func micro(t time.Time) time.Time {
	if rest := t.Nanosecond() % 1000; rest != 0 {
		t = t.Add(time.Duration(1000 - rest))
	}
	return t.UTC()
}

// Sentinel is the content of a backup's sentinel, with WAL-G's keys in WAL-G's
// order. LSNs are in bytes, sizes in bytes. Encode fills in what is the same
// in each.
type Sentinel struct {
	LSN           Number // where the backup starts, and redo
	DeltaLSN      Number `json:",omitzero"` // the parent's LSN: newer pages are in this backup
	DeltaFrom     string `json:",omitzero"` // the parent
	DeltaFullName string `json:",omitzero"` // the full backup of the chain
	DeltaCount    int    `json:",omitzero"` // 1 for the first delta
	// DeltaFromLSN is the name that DeltaLSN had until 2021. Both are written,
	// the same, so that every WAL-G can restore.
	DeltaFromLSN          Number `json:",omitzero"`
	PgVersion             int    // such as 150018
	FinishLSN             Number
	SystemIdentifier      Number          `json:",omitzero"`
	UncompressedSize      int64           // of the members' data
	CompressedSize        int64           // of what was uploaded
	DataCatalogSize       int64           `json:",omitzero"` // of all files, left out or not
	Spec                  *Spec           `json:",omitempty"`
	UserData              json.RawMessage `json:",omitempty"`
	FilesMetadataDisabled bool            `json:",omitzero"` // there is no files_metadata.json
	ChkpNum               *uint32         // OrioleDB's; null
	DeltaChkpNum          *uint32         `json:",omitempty"`
	Version               int             `json:",omitzero"` // 2, or 0 in what was written before 2021
	StartTime             time.Time       `json:",omitzero"`
	FinishTime            time.Time       `json:",omitzero"`
	DateFmt               string          `json:",omitzero"`
	Hostname              string
	DataDir               string
	IsPermanent           bool
}

// Delta reports whether the backup is based on another.
func (s *Sentinel) Delta() bool { return s.DeltaFrom != "" }

// Encode returns the sentinel as WAL-G writes it, in one line without an end.
func (s Sentinel) Encode() ([]byte, error) {
	s.DeltaFromLSN = s.DeltaLSN
	s.Version, s.DateFmt = sentinelVersion, dateFormat
	s.StartTime, s.FinishTime = micro(s.StartTime), micro(s.FinishTime)
	s.UserData = userData(s.UserData)
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("encode sentinel: %w", err)
	}
	return json.Marshal(s)
}

func (s *Sentinel) check() error {
	switch {
	case s.Delta() && (s.DeltaLSN == 0 || s.DeltaFullName == "" || s.DeltaCount < 1):
		return errors.New("DeltaFrom without DeltaLSN, DeltaFullName or DeltaCount")
	case s.Delta() && !(ValidName(s.DeltaFrom) && ValidName(s.DeltaFullName)):
		return fmt.Errorf("DeltaFrom %q or DeltaFullName %q is no name of a backup", s.DeltaFrom, s.DeltaFullName)
	case s.UncompressedSize < 0 || s.CompressedSize < 0 || s.DataCatalogSize < 0 || s.PgVersion < 0:
		return errors.New("a size or version below zero")
	}
	return nil
}

// userData is data without the null that WAL-G leaves out.
func userData(data json.RawMessage) json.RawMessage {
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return nil
	}
	return data
}

// ReadSentinel reads the sentinel of a backup, in today's form or that of 2020.
// Lists of files inside the sentinel, as the old form has, are passed
// over without being held.
func ReadSentinel(backup string, r io.Reader) (*Sentinel, error) {
	var s Sentinel
	if err := readObject(SentinelKey(backup), r, &s, "Files", "TarFileSets"); err != nil {
		return nil, err
	}
	if s.DeltaLSN == 0 {
		s.DeltaLSN = s.DeltaFromLSN
	}
	s.UserData = userData(s.UserData)
	if err := s.check(); err != nil {
		return nil, fault.New(fault.Data, "read %s: %w", SentinelKey(backup), err)
	}
	return &s, nil
}

// Metadata is the content of metadata.json, with WAL-G's keys in WAL-G's order.
// It, and not the sentinel, says whether a backup is permanent.
type Metadata struct {
	StartTime        time.Time       `json:"start_time"`
	FinishTime       time.Time       `json:"finish_time"`
	DateFmt          string          `json:"date_fmt"`
	Hostname         string          `json:"hostname"`
	DataDir          string          `json:"data_dir"`
	PgVersion        int             `json:"pg_version"`
	StartLSN         Number          `json:"start_lsn"`
	FinishLSN        Number          `json:"finish_lsn"`
	IsPermanent      bool            `json:"is_permanent"`
	SystemIdentifier Number          `json:"system_identifier"`
	UncompressedSize int64           `json:"uncompressed_size"`
	CompressedSize   int64           `json:"compressed_size"`
	UserData         json.RawMessage `json:"user_data,omitempty"`
}

// Metadata returns what metadata.json says of the backup of this sentinel.
func (s *Sentinel) Metadata() Metadata {
	return Metadata{
		StartTime: s.StartTime, FinishTime: s.FinishTime, Hostname: s.Hostname, DataDir: s.DataDir, PgVersion: s.PgVersion,
		StartLSN: s.LSN, FinishLSN: s.FinishLSN, IsPermanent: s.IsPermanent, SystemIdentifier: s.SystemIdentifier,
		UncompressedSize: s.UncompressedSize, CompressedSize: s.CompressedSize, UserData: s.UserData,
	}
}

// Encode returns the metadata as WAL-G writes it, in one line without an end.
func (m Metadata) Encode() ([]byte, error) {
	m.DateFmt = dateFormat
	m.StartTime, m.FinishTime = micro(m.StartTime), micro(m.FinishTime)
	m.UserData = userData(m.UserData)
	return json.Marshal(m)
}

// ReadMetadata reads the metadata.json of a backup.
func ReadMetadata(backup string, r io.Reader) (*Metadata, error) {
	var m Metadata
	if err := readObject(MetadataKey(backup), r, &m); err != nil {
		return nil, err
	}
	m.UserData = userData(m.UserData)
	return &m, nil
}
