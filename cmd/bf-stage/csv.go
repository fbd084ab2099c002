package main

import (
	"errors"
	"os"

	"bf/lib/cli"
	"bf/lib/csv"
	"bf/lib/source"
	"bf/lib/stage"
	"bf/lib/tsdb"
)

// csvFlags say how CSV is written.
type csvFlags struct {
	Fields    string `arg:"--columns" help:"CSV: the columns that the fields fill, instead of the names in the header; - leaves a field out" placeholder:"A,B,-,C"`
	NoHeader  bool   `arg:"--no-header" help:"CSV: the first line is data"`
	Delimiter string `arg:"--delimiter" help:"CSV: the character between fields; a comma by default" placeholder:"CHAR"`
	Quote     string `arg:"--quote" help:"CSV: the character around fields; a double quote by default" placeholder:"CHAR"`
	Escape    string `arg:"--escape" help:"CSV: the character before a quote in a quoted field; the quote by default" placeholder:"CHAR"`
	Null      string `arg:"--null" help:"CSV: an unquoted field with this text is NULL; an empty one by default" placeholder:"STRING"`
	Encoding  string `arg:"--encoding" help:"CSV: its encoding: utf8 (the default), latin1, latin2, latin9, windows-1250, -1251, -1252 or koi8-r" placeholder:"NAME"`
	Zone      string `arg:"--zone" help:"CSV: the time zone of times without an offset; UTC by default" placeholder:"NAME"`
	Reject    string `arg:"--reject" help:"CSV files: leave out the records that are bad, and write them there" placeholder:"FILE"`
	TimeUnit  string `arg:"--time-unit" help:"CSV: the time column is a number since 1970, in s, ms, us or ns" placeholder:"UNIT"`
}

// checkCSV refuses what does not go with a source of CSV.
func (f *flags) checkCSV(e *cli.Env) error {
	switch {
	case f.Target == "":
		return e.Usagef("--target is required with CSV: its rows are cut along the chunks of the target")
	case f.Into == "":
		return e.Usagef("--into is required with CSV: the hypertable that it fills")
	case f.From == "":
		return e.Usagef("--from is required with CSV: " +
			"it replaces what the target has from there to --until, and says not itself what it is complete for")
	case f.Filter != "" || f.Up || f.Down || f.Snapshot != "" || f.Maps != nil ||
		f.SkipNull || f.Columns || f.Sample > 0:
		return e.Usagef("--filter, --map, --skip-null-times, --columnstore, --sample, the cascades " +
			"and --snapshot do not go with CSV")
	case f.NoHeader && f.Fields == "":
		return e.Usagef("--columns is required with --no-header")
	case source.IsFiles(f.Source) && len(f.Paths) == 0:
		return e.Usagef("csv: needs the names of files: FILE ... below the directory")
	case source.IsCommand(f.Source) && (f.Scan != "auto" || f.Reject != "" || len(f.Paths) > 0):
		return e.Usagef("--scan, --reject and FILE do not go with a command")
	}
	return nil
}

// fromCSV makes the plan of a command or of files.
func fromCSV(e *cli.Env, f *flags, dst *tsdb.DB) (p *stage.Plan, err error) {
	ctx, files := e.Stop.Context, f.files()
	o := stage.Options{From: f.From, Until: f.Until, Target: dst, Any: f.Scan == "any", Progress: e.Log.Info}
	if source.IsCommand(f.Source) {
		return stage.Command(ctx, o, files)
	}
	dir, err := source.OpenFiles(f.Source)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	files.Open = dir.Open
	if files.Origin, err = dir.Origin(); err != nil {
		return nil, err
	}
	if files.Paths, err = dir.Below(f.Paths); err != nil {
		return nil, err
	}
	if f.Reject != "" {
		out, err := os.Create(f.Reject)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, out.Close()) }()
		files.Reject = out
	}
	p, err = stage.CSV(ctx, o, files)
	if err != nil {
		return nil, err
	}
	for _, n := range p.Notes {
		e.Log.Warn("source: %s", n)
	}
	return p, nil
}

// files is how the CSV is written, for package stage.
func (f *flags) files() stage.Files {
	return stage.Files{Into: f.Into, Columns: f.Fields, NoHeader: f.NoHeader, Dialect: csv.Dialect{
		Delimiter: f.Delimiter, Quote: f.Quote, Escape: f.Escape, Null: f.Null, Encoding: f.Encoding,
		Zone: f.Zone, Unit: f.TimeUnit}}
}
