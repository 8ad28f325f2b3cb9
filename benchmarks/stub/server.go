package main

import (
	"crypto/tls"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// server answers S3 in path style.
type server struct {
	store        *store
	tally        *tally
	verifySHA256 bool
}

// serve listens three times: S3 by HTTP, S3 by HTTPS, and levers for whoever runs the benchmark, which count nothing.
func serve(arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	dir := flags.String("dir", ".", "where ca.pem is written")
	verify := flags.Bool("verify-sha256", false, "refuse a body whose x-amz-content-sha256 is another's; costs CPU")
	_ = flags.Parse(arguments)
	trusted, certificate, err := certificates()
	if err != nil {
		return err
	}
	authority := filepath.Join(*dir, "ca.pem")
	if err := os.WriteFile(authority, trusted, 0o600); err != nil {
		return err
	}
	s := &server{store: &store{buckets: map[string]*bucket{}}, tally: newTally(), verifySHA256: *verify}
	web := &http.Server{
		Handler:   s,
		ConnState: s.tally.connection,
		ErrorLog:  log.New(io.Discard, "", 0), // clients that hang up are the clients' matter
		// HTTP/1.1 only, as Ceph's gateway speaks it: one HTTP/2 connection would measure flow control.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}},
	}
	facts := map[string]string{"ca": authority}
	ended := make(chan error)
	for name, answer := range map[string]func(net.Listener) error{
		"http":  web.Serve,
		"https": func(listener net.Listener) error { return web.ServeTLS(listener, "", "") },
		"admin": func(listener net.Listener) error { return http.Serve(listener, s.admin()) },
	} {
		listener, err := listen()
		if err != nil {
			return err
		}
		facts[name] = listener.Addr().String()
		go func() { ended <- answer(listener) }()
	}
	if err := announce(facts); err != nil {
		return err
	}
	return <-ended
}

// ServeHTTP sorts one request by its method, its path and the parameters that make it an operation.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, escaped, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	key, err := url.PathUnescape(escaped)
	query := r.URL.Query()
	operation, answer := s.operation(r, key, query)
	if s.tally.request(operation) {
		fail(w, refusal("SlowDown"))
		return
	}
	switch {
	case err != nil:
		fail(w, refusal("InvalidURI"))
	case answer == nil:
		fail(w, refusal("NotImplemented"))
	default:
		if err := answer(w, r, name, key, query); err != nil {
			fail(w, err)
		}
	}
}

type handler func(w http.ResponseWriter, r *http.Request, bucket, key string, query url.Values) error

// operation is S3's name of what is asked for, and who answers it.
func (s *server) operation(r *http.Request, key string, query url.Values) (string, handler) {
	if key == "" {
		switch {
		case r.Method == "GET" && query.Get("list-type") == "2":
			return "ListObjectsV2", s.list
		case r.Method == "GET" && query.Has("uploads"):
			return "ListMultipartUploads", s.listUploads
		case r.Method == "GET" && query.Has("location"):
			return "GetBucketLocation", constant("LocationConstraint")
		case r.Method == "GET" && query.Has("versioning"):
			return "GetBucketVersioning", constant("VersioningConfiguration")
		case r.Method == "POST" && query.Has("delete"):
			return "DeleteObjects", s.deleteMany
		case r.Method == "HEAD":
			return "HeadBucket", empty
		case r.Method == "PUT" && len(query) == 0:
			return "CreateBucket", empty
		}
	}
	switch {
	case key == "" || r.Header.Get("X-Amz-Copy-Source") != "":
	case r.Method == "PUT" && query.Has("partNumber"):
		return "UploadPart", s.putPart
	case r.Method == "POST" && query.Has("uploads"):
		return "CreateMultipartUpload", s.createUpload
	case r.Method == "POST" && query.Has("uploadId"):
		return "CompleteMultipartUpload", s.completeUpload
	case r.Method == "DELETE" && query.Has("uploadId"):
		return "AbortMultipartUpload", s.abortUpload
	case query.Has("uploadId"):
	case r.Method == "PUT":
		return "PutObject", s.put
	case r.Method == "GET":
		return "GetObject", s.get
	case r.Method == "HEAD":
		return "HeadObject", s.get
	case r.Method == "DELETE":
		return "DeleteObject", s.delete
	}
	return r.Method + "?" + strings.SplitN(r.URL.RawQuery, "=", 2)[0], nil
}

func (s *server) put(w http.ResponseWriter, r *http.Request, name, key string, _ url.Values) error {
	bytes, digest, err := received(r, s.tally, s.verifySHA256)
	if err != nil {
		return err
	}
	made := &object{etag: hex.EncodeToString(digest), modified: time.Now(), headers: kept(r.Header)}
	if len(bytes) > 0 {
		made.body = body{bytes}
	}
	s.store.in(name, func(b *bucket) {
		if err = unwanted(r, b.objects[key]); err == nil {
			b.put(key, made)
		}
	})
	if err == nil {
		w.Header().Set("ETag", quoted(made.etag))
	}
	return err
}

// unwanted refuses a conditional write over `there`, which may be nil.
func unwanted(r *http.Request, there *object) error {
	if r.Header.Get("If-None-Match") == "*" && there != nil {
		return refusal("PreconditionFailed")
	}
	if wanted := r.Header.Get("If-Match"); wanted != "" && (there == nil || !matches(wanted, there)) {
		return refusal("PreconditionFailed")
	}
	return nil
}

func (s *server) get(w http.ResponseWriter, r *http.Request, name, key string, _ url.Values) error {
	found := s.store.get(name, key)
	if found == nil {
		return refusal("NoSuchKey")
	}
	if wanted := r.Header.Get("If-Match"); wanted != "" && !matches(wanted, found) {
		return refusal("PreconditionFailed")
	}
	header := w.Header()
	for word, values := range found.headers {
		header[word] = values
	}
	header.Set("ETag", quoted(found.etag))
	header.Set("Last-Modified", found.modified.UTC().Format(http.TimeFormat))
	header.Set("Accept-Ranges", "bytes")
	if known := r.Header.Get("If-None-Match"); known != "" && matches(known, found) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	size := found.body.size()
	first, end, ok := span(r.Header.Get("Range"), size)
	if !ok {
		return refusal("InvalidRange")
	}
	header.Set("Content-Length", strconv.FormatInt(end-first, 10))
	if r.Header.Get("Range") != "" {
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, end-1, size))
		w.WriteHeader(http.StatusPartialContent)
	}
	if r.Method == "GET" {
		s.tally.out(int(end - first))
		_ = found.body.writeTo(w, first, end) // a client that hangs up is the client's matter
	}
	return nil
}

// span is the part of `size` bytes that a Range header asks for; one that begins beyond the end is not ok.
func span(asked string, size int64) (first, end int64, ok bool) {
	from, to, isRange := strings.Cut(strings.TrimPrefix(asked, "bytes="), "-")
	if !isRange {
		return 0, size, asked == ""
	}
	last, toErr := strconv.ParseInt(to, 10, 64)
	if from == "" {
		return max(size-last, 0), size, toErr == nil && size > 0
	}
	first, err := strconv.ParseInt(from, 10, 64)
	if to == "" || last >= size {
		last, toErr = size-1, nil
	}
	return first, last + 1, err == nil && toErr == nil && first <= last
}

func (s *server) delete(w http.ResponseWriter, _ *http.Request, name, key string, _ url.Values) error {
	s.store.in(name, func(b *bucket) { b.remove(key) })
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) deleteMany(w http.ResponseWriter, r *http.Request, name, _ string, _ url.Values) error {
	var wanted struct {
		Object []struct{ Key string }
		Quiet  bool
	}
	if err := s.readXML(r, &wanted); err != nil {
		return err
	}
	type deleted struct{ Key string }
	answer := struct {
		XMLName xml.Name `xml:"DeleteResult"`
		Deleted []deleted
	}{}
	s.store.in(name, func(b *bucket) {
		for _, each := range wanted.Object {
			b.remove(each.Key)
			if !wanted.Quiet {
				answer.Deleted = append(answer.Deleted, deleted{each.Key})
			}
		}
	})
	return sendXML(w, answer)
}

func (s *server) readXML(r *http.Request, into any) error {
	bytes, _, err := received(r, s.tally, false)
	if err != nil {
		return err
	}
	if xml.Unmarshal(bytes, into) != nil {
		return refusal("MalformedXML")
	}
	return nil
}

func sendXML(w http.ResponseWriter, answer any) error {
	text, err := xml.Marshal(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/xml")
	_, _ = w.Write(append([]byte(xml.Header), text...))
	return nil
}

// constant answers with one empty element.
func constant(element string) handler {
	return func(w http.ResponseWriter, _ *http.Request, _, _ string, _ url.Values) error {
		return sendXML(w, struct{ XMLName xml.Name }{xml.Name{Local: element}})
	}
}

func empty(http.ResponseWriter, *http.Request, string, string, url.Values) error { return nil }

var statuses = map[refusal]int{
	"MissingContentLength": http.StatusLengthRequired,
	"NoSuchKey":            http.StatusNotFound,
	"NoSuchUpload":         http.StatusNotFound,
	"NotImplemented":       http.StatusNotImplemented,
	"PreconditionFailed":   http.StatusPreconditionFailed,
	"InvalidRange":         http.StatusRequestedRangeNotSatisfiable,
	"SlowDown":             http.StatusServiceUnavailable,
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var code refusal
	if errors.As(err, &code) {
		status = http.StatusBadRequest
		if known, there := statuses[code]; there {
			status = known
		}
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "%s<Error><Code>%s</Code><Message>said by the stub</Message></Error>", xml.Header, err)
}

// kept is what of a request's headers belongs to the object.
func kept(all http.Header) http.Header {
	mine := http.Header{}
	for word, values := range all {
		if word == "Content-Type" || strings.HasPrefix(word, "X-Amz-Meta-") {
			mine[word] = values
		}
	}
	return mine
}

func quoted(etag string) string   { return `"` + etag + `"` }
func unquoted(etag string) string { return strings.Trim(etag, `"`) }

func matches(wanted string, there *object) bool {
	return wanted == "*" || unquoted(wanted) == there.etag
}
