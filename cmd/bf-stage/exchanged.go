package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/stage"
	"bf/lib/tsdb"
)

// exchanged asks before a plan is recorded that would empty the target.
type exchanged struct{ error }

func (exchanged) BadUsage() bool  { return true }
func (exchanged) Suggest() string { return "check --source and --target; if it is meant, give --yes" }

// checkExchanged returns an error if source and target seem to be exchanged, unless
// the user says that it is meant.
func checkExchanged(e *cli.Env, f *flags, dst *tsdb.DB, p *stage.Plan) error {
	if f.Yes || p.Again { // a plan of what differs may delete
		return nil
	}
	is, err := stage.Exchanged(e.Stop.Context, dst, p, f.Until)
	if err != nil || !is {
		return err
	}
	err = &pg.Error{Side: pg.Target, Err: exchanged{
		errors.New("holds rows before --until, and the source holds none: are the two exchanged?")}}
	if f.Source == "" || !cli.IsTerminal(e.Stdin) || !cli.IsTerminal(e.Stderr) {
		return err
	}
	fmt.Fprintf(e.Stderr, "%s: %v\nGo on, and delete the target's rows chunk by chunk? [y/N] ", e.Name, err)
	answer, _ := bufio.NewReader(e.Stdin).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a == "y" || a == "yes" {
		return nil
	}
	return cli.Exit(cli.Usage)
}
