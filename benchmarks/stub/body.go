package main

import (
	"bufio"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// refusal is an error that S3 has a code for.
type refusal string

func (r refusal) Error() string { return string(r) }

// counted is a request's body as it arrives.
type counted struct {
	io.Reader
	tally *tally
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.tally.in(n)
	return n, err
}

// received is a request's whole body and its MD5, checked against every digest that came with it.
func received(r *http.Request, t *tally, verifySHA256 bool) ([]byte, []byte, error) {
	var source io.Reader = r.Body
	if r.Method == "PUT" { // what a file costs on the wire; orders in XML are not among it
		source = counted{r.Body, t}
	}
	length := r.ContentLength
	content := r.Header.Get("X-Amz-Content-Sha256")
	if strings.HasPrefix(content, "STREAMING-") {
		decoded, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if err != nil {
			return nil, nil, refusal("MissingContentLength")
		}
		source, length = &chunked{source: bufio.NewReaderSize(source, 64<<10)}, decoded
	}
	if length < 0 {
		return nil, nil, refusal("MissingContentLength")
	}
	bytes := make([]byte, length)
	if _, err := io.ReadFull(source, bytes); err != nil {
		return nil, nil, refusal("IncompleteBody")
	}
	// The end has to be where it was said to be; of aws-chunked this also reads the trailers.
	if n, err := io.Copy(io.Discard, source); n != 0 || err != nil {
		return nil, nil, refusal("IncompleteBody")
	}
	digest := md5.Sum(bytes)
	if wanted := r.Header.Get("Content-Md5"); wanted != "" && wanted != base64.StdEncoding.EncodeToString(digest[:]) {
		return nil, nil, refusal("BadDigest")
	}
	if verifySHA256 && len(content) == 64 {
		if sum := sha256.Sum256(bytes); hex.EncodeToString(sum[:]) != content {
			return nil, nil, refusal("XAmzContentSHA256Mismatch")
		}
	}
	return bytes, digest[:], nil
}

// chunked undoes aws-chunked: hexadecimal size, perhaps a signature, bytes; after a chunk of none, trailers.
type chunked struct {
	source *bufio.Reader
	left   int64
	begun  bool
	ended  bool
}

func (c *chunked) Read(p []byte) (int, error) {
	if c.left == 0 && !c.ended {
		if err := c.header(); errors.Is(err, io.EOF) {
			return 0, io.ErrUnexpectedEOF // the chunk of none is missing
		} else if err != nil {
			return 0, err
		}
	}
	if c.ended {
		return 0, io.EOF
	}
	n, err := c.source.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the rest of this chunk is missing
	}
	return n, err
}

func (c *chunked) header() error {
	if c.begun { // the line break after a chunk's bytes
		if _, err := c.line(); err != nil {
			return err
		}
	}
	c.begun = true
	line, err := c.line()
	if err != nil {
		return err
	}
	size, _, _ := strings.Cut(line, ";")
	if c.left, err = strconv.ParseInt(size, 16, 64); err != nil || c.left < 0 {
		return fmt.Errorf("not a chunk's size: %q", size)
	}
	for c.left == 0 && line != "" {
		if line, err = c.line(); errors.Is(err, io.EOF) {
			break // some clients leave out the empty line after the trailers
		} else if err != nil {
			return err
		}
	}
	c.ended = c.left == 0
	return nil
}

func (c *chunked) line() (string, error) {
	line, err := c.source.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}
