"""What can be set, by environment variables: TAGWRIGHT_TOKEN, TAGWRIGHT_REDIS, and so on. An empty one counts as not set."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from tagwright.task import ROOT

HOME = ROOT / "data" / "work" / "service"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TAGWRIGHT_", env_ignore_empty=True, extra="ignore")

    models: str = str(HOME / "models")  # the registry: a folder, or s3://bucket/prefix
    data: Path = HOME  # uploads, results, the jobs' database, copies of the models in S3
    redis: str | None = None  # redis://…; None: one machine, with SQLite
    token: SecretStr | None = None  # for training, activation and removal; None: only this machine may do these
    encoders: list[str] = []  # that a task which comes with its rows may name, beside those of the tasks here
    url_hosts: list[str] = []  # from which a job may fetch its file
    max_text: int = Field(20_000, gt=0)  # characters
    max_upload: int = Field(200_000_000, gt=0)  # bytes
    requests_per_minute: int = Field(0, ge=0)  # of one client, for tags; 0: no limit
    jobs_per_hour: int = Field(60, ge=0)  # of one client
    keep_results_hours: int = Field(24, gt=0)
    max_job_hours: int = Field(24, gt=0)  # after which a job has failed
    threads: int | None = Field(None, gt=0)  # for a batch; None: all cores
