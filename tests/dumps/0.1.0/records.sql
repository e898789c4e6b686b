BEGIN TRANSACTION;
CREATE TABLE actor_tasks (
	id VARCHAR NOT NULL, 
	actor_id VARCHAR NOT NULL, 
	user_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	name_key VARCHAR NOT NULL, 
	created_at BIGINT NOT NULL, 
	modified_at BIGINT NOT NULL, 
	title VARCHAR, 
	options JSON NOT NULL, 
	input JSON, 
	standby_from_api JSON, 
	version INTEGER NOT NULL, 
	CONSTRAINT pk_actor_tasks PRIMARY KEY (id), 
	CONSTRAINT fk_actor_tasks_actor_id_actors FOREIGN KEY(actor_id) REFERENCES actors (id) ON DELETE CASCADE, 
	CONSTRAINT fk_actor_tasks_user_id_users FOREIGN KEY(user_id) REFERENCES users (id), 
	CONSTRAINT uq_actor_tasks_user_id_name_key UNIQUE (user_id, name_key)
);
CREATE TABLE actor_versions (
	actor_id VARCHAR NOT NULL, 
	version_number VARCHAR NOT NULL, 
	source_type VARCHAR NOT NULL, 
	source JSON NOT NULL, 
	env_vars JSON NOT NULL, 
	apply_env_vars_to_build BOOLEAN NOT NULL, 
	build_tag VARCHAR NOT NULL, 
	CONSTRAINT pk_actor_versions PRIMARY KEY (actor_id, version_number), 
	CONSTRAINT fk_actor_versions_actor_id_actors FOREIGN KEY(actor_id) REFERENCES actors (id) ON DELETE CASCADE
);
INSERT INTO "actor_versions" VALUES('cDHMnVmW10HF2f7Lb','0.1','SOURCE_FILES','{"snapshot":"9de453ef7a307ecb50bcc1e6a982181099cddddc21b1887cdab7e5d97e667243"}','[{"name":"KEY","value":"sealed:v1:0gqxn7sY1mMyOYDu8Qp6MED6/GW1wKIUmY3SrDs=","is_secret":true}]',0,'latest');
INSERT INTO "actor_versions" VALUES('9C1isDaD8xzkPKqYh','0.1','SOURCE_FILES','{"snapshot":"b9a28f7e5e967ef7c562461762180df20a930d4066cea7580b93909e43bd0324"}','[]',0,'latest');
CREATE TABLE actors (
	id VARCHAR NOT NULL, 
	user_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	name_key VARCHAR NOT NULL, 
	created_at BIGINT NOT NULL, 
	modified_at BIGINT NOT NULL, 
	title VARCHAR, 
	description VARCHAR, 
	is_public BOOLEAN NOT NULL, 
	default_run_options JSON NOT NULL, 
	standby_from_api JSON, 
	standby_from_file JSON, 
	tagged_builds JSON NOT NULL, 
	extra JSON NOT NULL, 
	version INTEGER NOT NULL, 
	CONSTRAINT pk_actors PRIMARY KEY (id), 
	CONSTRAINT fk_actors_user_id_users FOREIGN KEY(user_id) REFERENCES users (id), 
	CONSTRAINT uq_actors_user_id_name_key UNIQUE (user_id, name_key)
);
INSERT INTO "actors" VALUES('cDHMnVmW10HF2f7Lb','IBYPiSo7IahHFiQX1','batch','batch',1795647885211935,1795647885211935,NULL,NULL,0,'{"build":"latest","timeout_secs":3600,"memory_mbytes":1024,"restart_on_error":false,"max_items":null}',NULL,'{"isEnabled":false}','{"latest":{"build_id":"F1xSkSryewGcmgCpM","build_number":"0.1.1","finished_at":"2026-11-25T23:04:45.232979+00:00"}}','{}',2);
INSERT INTO "actors" VALUES('9C1isDaD8xzkPKqYh','IBYPiSo7IahHFiQX1','web','web',1795647885654634,1795647885654634,NULL,NULL,0,'{"build":"latest","timeout_secs":3600,"memory_mbytes":1024,"restart_on_error":false,"max_items":null}',NULL,'{"isEnabled":true,"idleTimeoutSecs":1}','{"latest":{"build_id":"cdwt4mpqOjW5RT79Y","build_number":"0.1.1","finished_at":"2026-11-25T23:04:45.667678+00:00"}}','{}',2);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE build_counters (
	actor_id VARCHAR NOT NULL, 
	version_number VARCHAR NOT NULL, 
	last_number INTEGER NOT NULL, 
	CONSTRAINT pk_build_counters PRIMARY KEY (actor_id, version_number), 
	CONSTRAINT fk_build_counters_actor_id_actors FOREIGN KEY(actor_id) REFERENCES actors (id) ON DELETE CASCADE
);
INSERT INTO "build_counters" VALUES('cDHMnVmW10HF2f7Lb','0.1',1);
INSERT INTO "build_counters" VALUES('9C1isDaD8xzkPKqYh','0.1',1);
CREATE TABLE builds (
	id VARCHAR NOT NULL, 
	actor_id VARCHAR NOT NULL, 
	user_id VARCHAR NOT NULL, 
	version_number VARCHAR NOT NULL, 
	build_number VARCHAR NOT NULL, 
	status VARCHAR(32) NOT NULL, 
	started_at BIGINT NOT NULL, 
	origin VARCHAR(32) NOT NULL, 
	tag VARCHAR, 
	finished_at BIGINT, 
	status_message VARCHAR, 
	snapshot VARCHAR, 
	definition JSON NOT NULL, 
	env_vars JSON NOT NULL, 
	options JSON NOT NULL, 
	meta JSON NOT NULL, 
	version INTEGER NOT NULL, 
	CONSTRAINT pk_builds PRIMARY KEY (id), 
	CONSTRAINT fk_builds_actor_id_actors FOREIGN KEY(actor_id) REFERENCES actors (id) ON DELETE CASCADE, 
	CONSTRAINT fk_builds_user_id_users FOREIGN KEY(user_id) REFERENCES users (id), 
	CONSTRAINT uq_builds_actor_id_build_number UNIQUE (actor_id, build_number)
);
INSERT INTO "builds" VALUES('F1xSkSryewGcmgCpM','cDHMnVmW10HF2f7Lb','IBYPiSo7IahHFiQX1','0.1','0.1.1','SUCCEEDED',1795647885225282,'CLI','latest',1795647885232979,'Build 0.1.1 succeeded.','9de453ef7a307ecb50bcc1e6a982181099cddddc21b1887cdab7e5d97e667243','{"actorSpecification":1,"name":"batch","version":"0.1","usesStandbyMode":true,"scripts":{"run":"exec python3 main.py"},"actorStandby":{"isEnabled":false}}','[]','{}','{}',3);
INSERT INTO "builds" VALUES('cdwt4mpqOjW5RT79Y','9C1isDaD8xzkPKqYh','IBYPiSo7IahHFiQX1','0.1','0.1.1','SUCCEEDED',1795647885663081,'CLI','latest',1795647885667678,'Build 0.1.1 succeeded.','b9a28f7e5e967ef7c562461762180df20a930d4066cea7580b93909e43bd0324','{"actorSpecification":1,"name":"web","version":"0.1","usesStandbyMode":true,"scripts":{"run":"exec python3 main.py"},"actorStandby":{"isEnabled":true,"idleTimeoutSecs":1}}','[]','{}','{}',3);
CREATE TABLE dataset_items (
	dataset_id VARCHAR NOT NULL, 
	position BIGINT NOT NULL, 
	item TEXT NOT NULL, 
	CONSTRAINT pk_dataset_items PRIMARY KEY (dataset_id, position), 
	CONSTRAINT fk_dataset_items_dataset_id_storages FOREIGN KEY(dataset_id) REFERENCES storages (id) ON DELETE CASCADE
);
INSERT INTO "dataset_items" VALUES('yKiqY142Jvy3pYzBK',0,'{"n":0}');
INSERT INTO "dataset_items" VALUES('yKiqY142Jvy3pYzBK',1,'{"n":1}');
INSERT INTO "dataset_items" VALUES('yKiqY142Jvy3pYzBK',2,'{"n":2}');
INSERT INTO "dataset_items" VALUES('emNhJ22gG7Y4yZxVb',0,'{"n":0}');
INSERT INTO "dataset_items" VALUES('emNhJ22gG7Y4yZxVb',1,'{"n":1}');
INSERT INTO "dataset_items" VALUES('emNhJ22gG7Y4yZxVb',2,'{"n":2}');
CREATE TABLE dataset_pushes (
	id VARCHAR NOT NULL, 
	dataset_id VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	process VARCHAR NOT NULL, 
	at BIGINT NOT NULL, 
	CONSTRAINT pk_dataset_pushes PRIMARY KEY (id), 
	CONSTRAINT fk_dataset_pushes_dataset_id_storages FOREIGN KEY(dataset_id) REFERENCES storages (id) ON DELETE CASCADE
);
CREATE TABLE decisions (
	id VARCHAR NOT NULL, 
	pool_id VARCHAR NOT NULL, 
	actor_id VARCHAR NOT NULL, 
	at BIGINT NOT NULL, 
	wanted_runs INTEGER NOT NULL, 
	present_runs INTEGER NOT NULL, 
	reasons JSON NOT NULL, 
	inputs JSON NOT NULL, 
	CONSTRAINT pk_decisions PRIMARY KEY (id)
);
INSERT INTO "decisions" VALUES('PMgtiVCpp4Kx8tfSk','9C1isDaD8xzkPKqYh.IBYPiSo7IahHFiQX1','9C1isDaD8xzkPKqYh',1795647885701679,1,0,'["1 run: 0 requests in flight and 1 waiting at up to 4 each"]','{"waiting":1,"inFlight":0,"maxRequestsPerActorRun":4,"desiredRequestsPerActorRun":3,"runs":[]}');
INSERT INTO "decisions" VALUES('gAuNZu5yNX19RCv3P','9C1isDaD8xzkPKqYh.IBYPiSo7IahHFiQX1','9C1isDaD8xzkPKqYh',1795647886793043,0,1,'["0 runs: 0 requests in flight and 0 waiting at up to 4 each","wind down PrLpWqLOtDomK92nr: idle for 1 s"]','{"waiting":0,"inFlight":0,"maxRequestsPerActorRun":4,"desiredRequestsPerActorRun":3,"runs":[{"id":"PrLpWqLOtDomK92nr","readiness":"serving","inFlight":0,"viewers":0,"idleSecs":1.001}]}');
INSERT INTO "decisions" VALUES('JxgpoQnM62icUzQ12','9C1isDaD8xzkPKqYh.IBYPiSo7IahHFiQX1','9C1isDaD8xzkPKqYh',1795647886793393,0,0,'["0 runs: 0 requests in flight and 0 waiting at up to 4 each"]','{"waiting":0,"inFlight":0,"maxRequestsPerActorRun":4,"desiredRequestsPerActorRun":3,"runs":[{"id":"PrLpWqLOtDomK92nr","readiness":"draining","inFlight":0,"viewers":0,"idleSecs":1.002}]}');
CREATE TABLE key_value_records (
	store_id VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	content_type VARCHAR NOT NULL, 
	size BIGINT NOT NULL, 
	modified_at BIGINT NOT NULL, 
	value BLOB, 
	blob VARCHAR, 
	CONSTRAINT pk_key_value_records PRIMARY KEY (store_id, "key"), 
	CONSTRAINT fk_key_value_records_store_id_storages FOREIGN KEY(store_id) REFERENCES storages (id) ON DELETE CASCADE
);
INSERT INTO "key_value_records" VALUES('yz8HZ2E9vNgIgVA5M','INPUT','application/json',16,1795647885259082,X'7B22736F6D65223A22696E707574227D',NULL);
INSERT INTO "key_value_records" VALUES('yz8HZ2E9vNgIgVA5M','OUTPUT','application/json',15,1795647885407274,X'7B2261223A20225C7530306663227D',NULL);
INSERT INTO "key_value_records" VALUES('Ocm8vtrkqK23yUu2q','INPUT','application/json',16,1795647885474328,X'7B22736F6D65223A22696E707574227D',NULL);
INSERT INTO "key_value_records" VALUES('Ocm8vtrkqK23yUu2q','OUTPUT','application/json',15,1795647885555548,X'7B2261223A20225C7530306663227D',NULL);
CREATE TABLE queue_requests (
	queue_id VARCHAR NOT NULL, 
	id VARCHAR NOT NULL, 
	unique_key VARCHAR NOT NULL, 
	data JSON NOT NULL, 
	handled_at BIGINT, 
	lock_expires_at BIGINT, 
	lock_owner VARCHAR, 
	order_no BIGINT, 
	added_no BIGINT NOT NULL, 
	CONSTRAINT pk_queue_requests PRIMARY KEY (queue_id, id), 
	CONSTRAINT fk_queue_requests_queue_id_storages FOREIGN KEY(queue_id) REFERENCES storages (id) ON DELETE CASCADE
);
INSERT INTO "queue_requests" VALUES('846hqzYCjtzgK4zqG','p5N7ZLjKpY8Dchu','first','{"url":"http://a.test/first","uniqueKey":"first"}',NULL,NULL,NULL,1,1);
INSERT INTO "queue_requests" VALUES('846hqzYCjtzgK4zqG','FjZ6rLZ6SgF8jai','second','{"url":"http://a.test/second","uniqueKey":"second"}',NULL,NULL,NULL,2,2);
INSERT INTO "queue_requests" VALUES('e1NmcJ5AdfEXljY1T','p5N7ZLjKpY8Dchu','first','{"url":"http://a.test/first","uniqueKey":"first"}',NULL,NULL,NULL,1,1);
INSERT INTO "queue_requests" VALUES('e1NmcJ5AdfEXljY1T','FjZ6rLZ6SgF8jai','second','{"url":"http://a.test/second","uniqueKey":"second"}',NULL,NULL,NULL,2,2);
CREATE TABLE runs (
	id VARCHAR NOT NULL, 
	actor_id VARCHAR NOT NULL, 
	user_id VARCHAR NOT NULL, 
	build_id VARCHAR NOT NULL, 
	build_number VARCHAR NOT NULL, 
	status VARCHAR(32) NOT NULL, 
	started_at BIGINT NOT NULL, 
	origin VARCHAR(32) NOT NULL, 
	options JSON NOT NULL, 
	live_view_label VARCHAR NOT NULL, 
	default_key_value_store_id VARCHAR NOT NULL, 
	default_dataset_id VARCHAR NOT NULL, 
	default_request_queue_id VARCHAR NOT NULL, 
	task_id VARCHAR, 
	finished_at BIGINT, 
	status_message VARCHAR, 
	is_status_message_terminal BOOLEAN NOT NULL, 
	exit_code INTEGER, 
	meta JSON NOT NULL, 
	stats JSON NOT NULL, 
	pool_id VARCHAR, 
	is_container_server_ready BOOLEAN NOT NULL, 
	abort_wish JSON, 
	wound_down_because VARCHAR, 
	general_access VARCHAR NOT NULL, 
	placement JSON NOT NULL, 
	version INTEGER NOT NULL, restart_wish JSON, input_key VARCHAR DEFAULT 'INPUT' NOT NULL, storage_ids JSON DEFAULT '{}' NOT NULL, parent_run_id VARCHAR, 
	CONSTRAINT pk_runs PRIMARY KEY (id), 
	CONSTRAINT fk_runs_user_id_users FOREIGN KEY(user_id) REFERENCES users (id), 
	CONSTRAINT uq_runs_live_view_label UNIQUE (live_view_label)
);
INSERT INTO "runs" VALUES('mRkinpXna73lmJthS','cDHMnVmW10HF2f7Lb','IBYPiSo7IahHFiQX1','F1xSkSryewGcmgCpM','0.1.1','SUCCEEDED',1795647885259082,'API','{"build":"latest","timeout_secs":3600,"memory_mbytes":1024,"disk_mbytes":2048,"max_items":null,"max_total_charge_usd":null,"restart_on_error":false}','bvxevaniatfexwnbtq4vcuzpet','yz8HZ2E9vNgIgVA5M','yKiqY142Jvy3pYzBK','846hqzYCjtzgK4zqG',NULL,1795647885461319,'done',1,0,'{"clientIp":"127.0.0.1","userAgent":"python-httpx/0.28.1"}','{"inputBodyLen":16,"migrationCount":0,"rebootCount":0,"restartCount":0,"resurrectCount":0,"memAvgBytes":0,"memMaxBytes":0,"memCurrentBytes":0,"cpuAvgUsage":0,"cpuMaxUsage":0,"cpuCurrentUsage":0,"netRxBytes":0,"netTxBytes":0,"durationMillis":202,"runTimeSecs":0.202,"metamorph":0,"computeUnits":5.6e-05}',NULL,0,NULL,NULL,'FOLLOW_USER_SETTING','{"launcher":"process","boot_id":"1b8788f9-7b5a-4f9c-a5b8-cfd2d0104cfa","host":"127.0.0.1","port":22394,"shim_pid":5658,"shim_started":"1618768","actor_pid":5667}',4,NULL,'INPUT','{}',NULL);
INSERT INTO "runs" VALUES('z2Bz1Fqp9Vo8CLurA','cDHMnVmW10HF2f7Lb','IBYPiSo7IahHFiQX1','F1xSkSryewGcmgCpM','0.1.1','SUCCEEDED',1795647885474328,'API','{"build":"latest","timeout_secs":3600,"memory_mbytes":1024,"disk_mbytes":2048,"max_items":null,"max_total_charge_usd":null,"restart_on_error":false}','espljdnjobeghd2fly6a3dmggu','Ocm8vtrkqK23yUu2q','emNhJ22gG7Y4yZxVb','e1NmcJ5AdfEXljY1T',NULL,1795647885608010,'done',1,0,'{"clientIp":"127.0.0.1","userAgent":"python-httpx/0.28.1"}','{"inputBodyLen":16,"migrationCount":0,"rebootCount":0,"restartCount":0,"resurrectCount":0,"memAvgBytes":0,"memMaxBytes":0,"memCurrentBytes":0,"cpuAvgUsage":0,"cpuMaxUsage":0,"cpuCurrentUsage":0,"netRxBytes":0,"netTxBytes":0,"durationMillis":133,"runTimeSecs":0.134,"metamorph":0,"computeUnits":3.7e-05}',NULL,0,NULL,NULL,'FOLLOW_USER_SETTING','{"launcher":"process","boot_id":"1b8788f9-7b5a-4f9c-a5b8-cfd2d0104cfa","host":"127.0.0.1","port":22395,"shim_pid":5673,"shim_started":"1618804","actor_pid":5674}',4,NULL,'INPUT','{}',NULL);
INSERT INTO "runs" VALUES('PrLpWqLOtDomK92nr','9C1isDaD8xzkPKqYh','IBYPiSo7IahHFiQX1','cdwt4mpqOjW5RT79Y','0.1.1','SUCCEEDED',1795647885701293,'STANDBY','{"build":"latest","timeout_secs":0,"memory_mbytes":1024,"disk_mbytes":2048,"max_items":null,"max_total_charge_usd":null,"restart_on_error":false}','fl2cpcmwxlzfpyhhroq2jsouws','Tb2sQZOUzb4duHZWq','piEi7Tw7MIro1P1oR','9HBbYDgbLyRa3yfO0',NULL,1795647886802725,'Actor Standby run was finished: idle for 1 s.',0,143,'{"tenancy":"SINGLE_TENANT"}','{"inputBodyLen":0,"migrationCount":0,"rebootCount":0,"restartCount":0,"resurrectCount":0,"memAvgBytes":10301440,"memMaxBytes":10301440,"memCurrentBytes":10301440,"cpuAvgUsage":9.897,"cpuMaxUsage":9.897,"cpuCurrentUsage":9.897,"netRxBytes":0,"netTxBytes":0,"durationMillis":1101,"runTimeSecs":1.101,"metamorph":0,"computeUnits":0.000306}','9C1isDaD8xzkPKqYh.IBYPiSo7IahHFiQX1',1,NULL,'idle for 1 s','FOLLOW_USER_SETTING','{"launcher":"process","boot_id":"1b8788f9-7b5a-4f9c-a5b8-cfd2d0104cfa","host":"127.0.0.1","port":22396,"shim_pid":5675,"shim_started":"1618818","actor_pid":5678}',4,NULL,'INPUT','{}',NULL);
CREATE TABLE "storages" (
	id VARCHAR NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	user_id VARCHAR NOT NULL, 
	created_at BIGINT NOT NULL, 
	modified_at BIGINT NOT NULL, 
	accessed_at BIGINT NOT NULL, 
	name VARCHAR, 
	actor_id VARCHAR, 
	run_id VARCHAR, 
	stats JSON NOT NULL, 
	name_key VARCHAR, 
	title VARCHAR, 
	general_access VARCHAR DEFAULT 'FOLLOW_USER_SETTING' NOT NULL, 
	CONSTRAINT pk_storages PRIMARY KEY (id), 
	CONSTRAINT fk_storages_user_id_users FOREIGN KEY(user_id) REFERENCES users (id), 
	CONSTRAINT uq_storages_user_id_kind_name_key UNIQUE (user_id, kind, name_key)
);
INSERT INTO "storages" VALUES('yz8HZ2E9vNgIgVA5M','key-value-store','IBYPiSo7IahHFiQX1',1795647885259082,1795647885407274,1795647885407274,NULL,'cDHMnVmW10HF2f7Lb','mRkinpXna73lmJthS','{"writeCount":2,"storageBytes":31}',NULL,NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('yKiqY142Jvy3pYzBK','dataset','IBYPiSo7IahHFiQX1',1795647885259082,1795647885424157,1795647885424157,NULL,'cDHMnVmW10HF2f7Lb','mRkinpXna73lmJthS','{"itemCount":3,"cleanItemCount":3,"storageBytes":21,"writeCount":3}',NULL,NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('846hqzYCjtzgK4zqG','request-queue','IBYPiSo7IahHFiQX1',1795647885259082,1795647885434492,1795647885434492,NULL,'cDHMnVmW10HF2f7Lb','mRkinpXna73lmJthS','{"hadMultipleClients":true,"_back":2,"_added":2,"totalRequestCount":2,"handledRequestCount":0,"pendingRequestCount":2}',NULL,NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('Ocm8vtrkqK23yUu2q','key-value-store','IBYPiSo7IahHFiQX1',1795647885474328,1795647885555548,1795647885555548,NULL,'cDHMnVmW10HF2f7Lb','z2Bz1Fqp9Vo8CLurA','{"writeCount":2,"storageBytes":31}',NULL,NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('emNhJ22gG7Y4yZxVb','dataset','IBYPiSo7IahHFiQX1',1795647885474328,1795647885561431,1795647885561431,NULL,'cDHMnVmW10HF2f7Lb','z2Bz1Fqp9Vo8CLurA','{"itemCount":3,"cleanItemCount":3,"storageBytes":21,"writeCount":3}',NULL,NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('e1NmcJ5AdfEXljY1T','request-queue','IBYPiSo7IahHFiQX1',1795647885474328,1795647885572901,1795647885572901,NULL,'cDHMnVmW10HF2f7Lb','z2Bz1Fqp9Vo8CLurA','{"hadMultipleClients":true,"_back":2,"_added":2,"totalRequestCount":2,"handledRequestCount":0,"pendingRequestCount":2}',NULL,NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('Tb2sQZOUzb4duHZWq','key-value-store','IBYPiSo7IahHFiQX1',1795647885701293,1795647885701293,1795647885701293,NULL,'9C1isDaD8xzkPKqYh','PrLpWqLOtDomK92nr','{}',NULL,NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('piEi7Tw7MIro1P1oR','dataset','IBYPiSo7IahHFiQX1',1795647885701293,1795647885701293,1795647885701293,NULL,'9C1isDaD8xzkPKqYh','PrLpWqLOtDomK92nr','{}',NULL,NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('9HBbYDgbLyRa3yfO0','request-queue','IBYPiSo7IahHFiQX1',1795647885701293,1795647885701293,1795647885701293,NULL,'9C1isDaD8xzkPKqYh','PrLpWqLOtDomK92nr','{"_client":"of-the-test"}',NULL,NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('K9Ajic1OB9YZPfenI','dataset','IBYPiSo7IahHFiQX1',1795647886820244,1795647886820244,1795647886820244,'Named-datasets',NULL,NULL,'{}','named-datasets',NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('Ol9Y1rKDFNja7F80y','key-value-store','IBYPiSo7IahHFiQX1',1795647886830786,1795647886830786,1795647886830786,'Named-key-value-stores',NULL,NULL,'{}','named-key-value-stores',NULL,'FOLLOW_USER_SETTING');
INSERT INTO "storages" VALUES('YPJnTWzaP8cScBx6C','request-queue','IBYPiSo7IahHFiQX1',1795647886835208,1795647886835208,1795647886835208,'Named-request-queues',NULL,NULL,'{}','named-request-queues',NULL,'FOLLOW_USER_SETTING');
CREATE TABLE tokens (
	id VARCHAR NOT NULL, 
	user_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	token_hash VARCHAR NOT NULL, 
	scopes JSON NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	run_id VARCHAR, 
	CONSTRAINT pk_tokens PRIMARY KEY (id), 
	CONSTRAINT fk_tokens_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE, 
	CONSTRAINT fk_tokens_user_id_users FOREIGN KEY(user_id) REFERENCES users (id), 
	CONSTRAINT uq_tokens_token_hash UNIQUE (token_hash)
);
INSERT INTO "tokens" VALUES('rO8BYUh2KjfqurA50','IBYPiSo7IahHFiQX1','given at start','eafed962eca24c59f2e76e8f2cbc32958fc065b7b2657dbc341894f0dfa22102','["*"]',1795647885041324,NULL,NULL);
CREATE TABLE users (
	id VARCHAR NOT NULL, 
	username VARCHAR NOT NULL, 
	username_key VARCHAR NOT NULL, 
	is_admin BOOLEAN NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_users PRIMARY KEY (id), 
	CONSTRAINT uq_users_username_key UNIQUE (username_key)
);
INSERT INTO "users" VALUES('IBYPiSo7IahHFiQX1','local','local',1,1795647885041324);
CREATE INDEX ix_builds_actor_id_started_at ON builds (actor_id, started_at);
CREATE INDEX ix_builds_status ON builds (status);
CREATE INDEX ix_builds_user_id_started_at ON builds (user_id, started_at);
CREATE INDEX ix_actor_tasks_actor_id ON actor_tasks (actor_id);
CREATE INDEX ix_runs_actor_id_started_at ON runs (actor_id, started_at);
CREATE INDEX ix_runs_status ON runs (status);
CREATE INDEX ix_runs_user_id_started_at ON runs (user_id, started_at);
CREATE INDEX ix_tokens_run_id ON tokens (run_id);
CREATE INDEX ix_tokens_user_id ON tokens (user_id);
CREATE INDEX ix_decisions_actor_id ON decisions (actor_id);
CREATE INDEX ix_decisions_pool_id_at ON decisions (pool_id, at);
CREATE INDEX ix_storages_run_id ON storages (run_id);
CREATE INDEX ix_dataset_pushes_dataset_id_digest ON dataset_pushes (dataset_id, digest);
CREATE UNIQUE INDEX ix_queue_requests_queue_id_added_no ON queue_requests (queue_id, added_no);
CREATE INDEX ix_queue_requests_pending ON queue_requests (queue_id, order_no) WHERE order_no IS NOT NULL;
CREATE INDEX ix_queue_requests_locked ON queue_requests (queue_id, lock_expires_at) WHERE lock_expires_at IS NOT NULL;
COMMIT;
