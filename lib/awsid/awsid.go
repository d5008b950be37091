// Package awsid finds out who we are to the services of Amazon and their like,
// the way Amazon's own tools do: a key of the settings, else a profile, a web
// identity or the role of the machine; and with these, where the settings name
// one, a role.
//
// The SDK that does it reads the variables of AWS by itself, where the
// settings leave something open.
package awsid

import (
	"context"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
)

// timeout is for one request to whoever gives credentials. Where there is no
// metadata service nobody answers.
const timeout = 5 * time.Second

// Hints of Nobody.
const (
	Hint     = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; or run where a role gives credentials"
	roleHint = "may these credentials assume AWS_ROLE_ARN?"
)

// defaultRegion is where a role is had if no region is known.
const defaultRegion = "us-east-1"

// Settings are the variables of AWS, by their meaning. Empty is not set.
type Settings struct {
	Key, Secret, Token string
	Profile            string
	CredentialsFile    string
	ConfigFile         string
	Role, RoleSession  string
	WebIdentity        string // file of a token, which is exchanged for Role
	Metadata           string // endpoint of the metadata service
	Region             string
}

// Find returns credentials that were had once, and the region, which a profile
// may tell; it may be empty. Without credentials the error is *Nobody.
func Find(ctx context.Context, s Settings) (aws.CredentialsProvider, string, error) {
	var static aws.CredentialsProvider
	if s.Key != "" {
		static = credentials.NewStaticCredentialsProvider(s.Key, s.Secret, s.Token)
	}
	// Where a web identity goes with the role, the SDK does it all.
	assume := s.Role != "" && s.WebIdentity == ""
	if static != nil && !assume && s.Region != "" {
		return static, s.Region, nil
	}
	cfg, err := load(ctx, s, static)
	if err != nil {
		return nil, "", &Nobody{Err: err, Hint: Hint}
	}
	region, who := cfg.Region, cfg.Credentials
	// Who asks for the role must be somebody, so it is asked first.
	hint := Hint
	if s.Role != "" && !assume {
		hint = roleHint
	}
	if _, err := who.Retrieve(ctx); err != nil {
		return nil, "", &Nobody{err, hint, hint == roleHint}
	}
	if !assume {
		return who, region, nil
	}
	if cfg.Region == "" {
		cfg.Region = defaultRegion
	}
	who = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), s.Role,
		func(o *stscreds.AssumeRoleOptions) {
			if s.RoleSession != "" {
				o.RoleSessionName = s.RoleSession
			}
		}))
	if _, err := who.Retrieve(ctx); err != nil {
		return nil, "", &Nobody{err, roleHint, true}
	}
	return who, region, nil
}

// load looks where Amazon's tools look.
func load(ctx context.Context, s Settings, static aws.CredentialsProvider) (aws.Config, error) {
	with := []func(*config.LoadOptions) error{
		// This client the SDK can give the CA of AWS_CA_BUNDLE.
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(timeout)),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithLogger(logging.Nop{}),
		config.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = Metadata(s.Metadata) }),
	}
	if s.Region != "" {
		with = append(with, config.WithRegion(s.Region))
	}
	if s.Profile != "" {
		with = append(with, config.WithSharedConfigProfile(s.Profile))
	}
	if s.CredentialsFile != "" {
		with = append(with, config.WithSharedCredentialsFiles([]string{s.CredentialsFile}))
	}
	if s.ConfigFile != "" {
		with = append(with, config.WithSharedConfigFiles([]string{s.ConfigFile}))
	}
	if static != nil {
		with = append(with, config.WithCredentialsProvider(static))
	}
	return config.LoadDefaultConfig(ctx, with...)
}

// Metadata is a client of the machine's metadata service; an empty endpoint is
// the usual one.
func Metadata(endpoint string) *imds.Client {
	return imds.New(imds.Options{
		Endpoint:   endpoint,
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: timeout},
		Retryer:    aws.NopRetryer{},
	})
}
