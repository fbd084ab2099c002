package task

// Loose is why a chunk that is compressed on the source is left uncompressed on the
// target, all or a part of its rows. bf-stage says it beforehand, by the same
// Obstacles as bf-load afterwards.
type Loose string

// The reasons, in the order in which they count.
const (
	LooseApache     Loose = "apache edition"    // the target knows no compression
	LooseDisabled   Loose = "not enabled"       // the target's hypertable has no compression
	LooseDimensions Loose = "other dimensions"  // or partitions: there can be no chunk like the source's
	LooseExtents    Loose = "other chunks"      // of other extents are where the source's would be
	LooseRange      Loose = "part of the chunk" // is all that is staged of it
	LooseReferenced Loose = "referenced"        // by other tables: it cannot be compressed, and rows are merged
	LooseDefault    Loose = "default"           // of a column of the target's chunk: NULLs would become it
	LooseRefused    Loose = "refused"           // by the target's server
	LoosePrivilege  Loose = "missing privilege" // to create relations in TimescaleDB's schema
)

// Obstacles are the reasons that apply to a chunk on a target.
type Obstacles map[Loose]bool

// First is the one that counts, "" for none.
func (o Obstacles) First() Loose {
	for _, l := range []Loose{LooseApache, LooseDisabled, LooseDimensions, LooseExtents, LooseRange, LooseReferenced,
		LooseDefault, LooseRefused, LoosePrivilege} {
		if o[l] {
			return l
		}
	}
	return ""
}

// Says is the reason for people.
func (l Loose) Says() string {
	return map[Loose]string{
		LooseApache:     "the target is the Apache edition",
		LooseDisabled:   "compression is not enabled on the target",
		LooseDimensions: "the target has other dimensions or partitions",
		LooseExtents:    "the target has chunks of other extents there",
		LooseRange:      "the staged range cuts the chunk",
		LooseReferenced: "other tables reference the target's hypertable",
		LooseDefault:    "a column was added with a default to the target's chunk, which NULLs would become",
		LooseRefused:    "the target's server refuses to compress it",
		LoosePrivilege:  "the target's role may not create relations in schema _timescaledb_internal",
	}[l]
}
