package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/rotation"
)

// The files of the demo: this one runs it, demosetup.go makes what a user would have,
// demostory.go is what happens.

// demoStep bounds what the demo waits for; it takes a second or two.
const demoStep = 30 * time.Second

func newDemoCommand(g *globals) *cobra.Command {
	var keep bool
	var dir string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole job, offline: simulator, NATS, PEM directory and daemon in one process",
		Long: "Demo starts a simulated cloud, an embedded NATS server and the daemon, replaces certificates on disk, has others\n" +
			"issued, and shows how the new ones come to be served at a firewall, an API gateway, a web server and an identity\n" +
			"provider. It needs no configuration and no network, and listens on loopback only.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, remove, err := workDirectory(dir, "rotatord-demo-")
			if err != nil {
				return err
			}
			defer remove()
			d := &demo{out: cmd.OutOrStdout(), dir: path, began: time.Now()}
			return d.run(cmd, g, keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave everything running afterwards, until interrupted")
	cmd.Flags().StringVar(&dir, "dir", "", "keep the files in this directory (default a temporary one)")
	return cmd
}

// demo is one performance.
type demo struct {
	out   io.Writer
	dir   string
	began time.Time
	ca    *certstest.CA
	sim   *cloudsim.Sim
	// webServers are addresses of web servers by the directory they read.
	webServers map[string]string
	daemon     *daemon
	nats       *nats.Conn
	events     chan rotation.Event
}

func (d *demo) run(cmd *cobra.Command, g *globals, keep bool) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	defer func() { _ = d.sim.Close() }()
	stopped, err := d.startDaemon(ctx, cmd, g)
	if err != nil {
		return err
	}
	err = d.perform(ctx)
	if err == nil && keep {
		d.explore()
		<-cmd.Context().Done()
	}
	if d.nats != nil {
		d.nats.Close()
	}
	cancel()
	if stopping := <-stopped; err == nil {
		err = stopping
	}
	if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
		return errors.New("the demo was interrupted")
	}
	if err == nil && !keep {
		d.say("Done in %s. rotatord demo --keep leaves it running; README.md says how to go on.", time.Since(d.began).Round(10*time.Millisecond))
	}
	return err
}

// title and say narrate: with the time since the demo began.
func (d *demo) title(format string, args ...any) {
	fmt.Fprintf(d.out, "\n"+format+"\n", args...)
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%7.2fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// startDaemon runs the daemon on the files as rotatord run does, and listens to its
// events as any NATS client can.
func (d *demo) startDaemon(ctx context.Context, cmd *cobra.Command, g *globals) (<-chan error, error) {
	d.title("The daemon starts")
	set, err := policy.Load(filepath.Join(d.dir, "rotatord.yaml"), func(string) string { return "" })
	if err != nil {
		return nil, err
	}
	log, _, err := newLogger(cmd.ErrOrStderr(), g, policy.Log{Level: "warn", Format: "auto"})
	if err != nil {
		return nil, err
	}
	if d.daemon, err = newDaemon(set, log); err != nil {
		return nil, err
	}
	stopped := make(chan error, 1)
	listening := d.listen()
	go func() { stopped <- d.daemon.Run(ctx) }()
	return stopped, listening
}

func (d *demo) listen() error {
	var err error
	if d.nats, err = nats.Connect(d.daemon.bus.ListenURL(), nats.Name("rotatord demo")); err != nil {
		return fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	d.events = make(chan rotation.Event, 256)
	heard := map[string]bool{} // what is published again is dropped by the stream, which this does not read
	_, err = d.nats.Subscribe("rotatord.event.>", func(m *nats.Msg) {
		var e struct {
			ID   string             `json:"id"`
			Type string             `json:"type"`
			Time time.Time          `json:"time"`
			Data rotation.EventData `json:"data"`
		}
		if json.Unmarshal(m.Data, &e) == nil && !heard[e.ID] {
			heard[e.ID] = true
			d.events <- rotation.Event{Kind: rotation.EventKind(kindOf(e.Type)), Time: e.Time, Data: e.Data}
		}
	})
	if err == nil {
		err = d.nats.Flush()
	}
	if err != nil {
		return fmt.Errorf("listen to events: %w", err)
	}
	return nil
}
