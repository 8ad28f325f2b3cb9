package main

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// measure runs one command and writes what it cost, with all its descendants, to a file.
//
// The peak of resident memory that the kernel reports begins with what the parent had at exec; this parent is small,
// which a Python that drives benchmarks is not.
func measure(arguments []string) error {
	flags := flag.NewFlagSet("measure", flag.ExitOnError)
	report := flags.String("report", "", "file for the figures, as JSON")
	timeout := flags.Duration("timeout", 2*time.Minute, "kill the command's group after this long")
	_ = flags.Parse(arguments)
	if flags.NArg() == 0 || *report == "" {
		return errors.New("measure needs -report FILE and a command")
	}
	command := exec.Command(flags.Arg(0), flags.Args()[1:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	began := time.Now()
	if err := command.Start(); err != nil {
		return err
	}
	late := time.AfterFunc(*timeout, func() { _ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) })
	_ = command.Wait() // the exit code is one of the figures
	wall := time.Since(began)
	timely := late.Stop()
	state := command.ProcessState
	text, err := json.Marshal(map[string]any{
		"wall_s":    wall.Seconds(),
		"user_s":    state.UserTime().Seconds(),
		"system_s":  state.SystemTime().Seconds(),
		"rss_mib":   float64(state.SysUsage().(*syscall.Rusage).Maxrss) / 1024,
		"exit_code": state.ExitCode(),
		"timed_out": !timely,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(*report, text, 0o600)
}
